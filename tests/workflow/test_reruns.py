"""Only stale stages run: each edit of the config or the code, and exactly the jobs that it makes stale."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.conftest import TINY_WORLD, Workflow

TABLES = ["zero_shot", "all_metrics", "safe_retrieval", "selective", "ablations", "published", "compat"]
PLOTS_OF_METRICS = ["zero_shot", "recall_vs_auroc", "densities", "projection", "deteriorations", "human_ambiguity"]
VIEWS_OF_METRICS = {"metrics": 1} | dict.fromkeys([f"table_{name}" for name in TABLES], 1)
VIEWS_OF_METRICS |= dict.fromkeys([f"plot_{name}" for name in PLOTS_OF_METRICS], 1)
VIEWS_OF_METRICS |= {"export": 2}  # a model card per backbone
# Views of the scores of single images, of the first backbone.
VIEWS_OF_SCORES = ["examples", "risk_coverage", "safe_retrieval_curves", "safe_retrieval_surface"]
SUMMARIES = VIEWS_OF_METRICS | {"provenance": 1} | dict.fromkeys([f"plot_{name}" for name in VIEWS_OF_SCORES], 1)
PLOTS_AND_CURVES = SUMMARIES | {"plot_training_curves": 1}
# Two backbones; per backbone the upstream and one downstream set. The first one has ablations and deteriorated images.
MAIN_HEADS = {"evaluate": 4, "safe_retrieval": 4, "deteriorations": 1, "projection_page": 1}
ABLATIONS = {"evaluate_ablations": 1}
ABLATION_HEADS = {"ablation_heads_train": 1, "ablation_heads_mixup": 1}
EVERY_HEAD = {"head": 2} | ABLATION_HEADS | MAIN_HEADS | ABLATIONS | PLOTS_AND_CURVES
SAFE_RETRIEVAL = VIEWS_OF_METRICS | {"provenance": 1, "plot_safe_retrieval_curves": 1, "plot_safe_retrieval_surface": 1}
JOINT_TRAINING = {"joint_training": 2, "plot_joint_training": 1}
SECOND_BACKBONE = {"backbone": 1, "evaluation_features": 2, "features": 2, "cache": 5, "neighbours": 2, "head": 1}
SECOND_BACKBONE |= {"baselines": 2, "evaluate": 2, "safe_retrieval": 2}
SECOND_BACKBONE |= VIEWS_OF_METRICS | {"provenance": 1, "plot_training_curves": 1}


@pytest.fixture
def world(tiny: Workflow) -> Iterator[Workflow]:
    yield tiny
    tiny.write_config(TINY_WORLD)


def edited(path: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(TINY_WORLD)
    *parents, last = path.split(".")
    section = config
    for key in parents:
        section = section.setdefault(key, {})
    section[last] = value
    return config


def reordered() -> dict[str, Any]:
    """Return the config with every mapping in the reverse order, but for what figures show the first one of."""

    def reverse(value: Any) -> Any:
        return {key: reverse(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    return reverse(TINY_WORLD) | {key: TINY_WORLD[key] for key in ("backbones", "variants")}


def test_a_second_run_has_nothing_to_do(world: Workflow) -> None:
    result = world.snakemake()
    assert "Nothing to be done" in result.stdout + result.stderr
    assert " of work in " not in result.stdout + result.stderr  # no summary of nothing


NEW_DATASET = {"kind": "glyphs", "script": "armenian", "image_size": 32, "per_class": {"test": 2}}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # One more head per backbone is trained; every set is scored again, since a score file holds all seeds.
        (edited("seeds", [1, 2]), EVERY_HEAD),
        # The number of its blocks is known once it is indexed, so `features` isn't planned yet.
        (
            edited("datasets.armenian", NEW_DATASET) | {"downstream": ["greek", "armenian"]},
            {"dataset": 1, "dataset_card": 1, "cache": 4, "neighbours": 2, "baselines": 2, "evaluate": 2}
            | {"safe_retrieval": 2}
            | ABLATIONS
            | PLOTS_AND_CURVES,
        ),
        # A dataset that nothing uses.
        (edited("datasets.armenian", NEW_DATASET), {}),
        # Epochs 2 and 3 are one more block of each range of images (248 images in blocks of 200); other views stay.
        (
            edited("features.views.train.epochs", 4),
            {"features": 4, "cache": 2, "head": 2, "ablation_heads_train": 1}
            | MAIN_HEADS
            | ABLATIONS
            | PLOTS_AND_CURVES,
        ),
        (edited("training.learning_rate", 0.002), EVERY_HEAD),
        (edited("variants.default", {"training": {"margin": 0.2}}), {"head": 2} | MAIN_HEADS | PLOTS_AND_CURVES),
        (
            edited("ablations.variants.leeway", {"training": {"leeway": 0.2}}),
            {"ablation_heads_train": 1} | ABLATIONS | VIEWS_OF_METRICS | {"provenance": 1},
        ),
        (edited("joint_training.options.learning_rate", 0.01), JOINT_TRAINING),
        (edited("evaluation.safe_retrieval.table_share", 0.2), {"safe_retrieval": 4} | SAFE_RETRIEVAL),
        (
            edited("variants.narrow", {"training": {"hidden": [8]}}),
            {"head": 2, "evaluate": 4} | PLOTS_AND_CURVES | {"export": 4},
        ),
        (edited("export", {"backbone": False}), {"export": 2}),
        # Its heads read the same cache, and losses that are computed from it once for all seeds.
        (
            edited("variants.neighbours", {"training": {"task_loss": "knn"}}),
            {"task_loss": 2, "head": 2, "evaluate": 4} | PLOTS_AND_CURVES | {"export": 4},
        ),
        # Nothing in this world reads them, or is calibrated.
        (edited("task_losses.temperature", 0.5), {}),
        (edited("evaluation.calibration.alpha", 0.1), {}),
        (edited("evaluation.plots.densities", {"width": 5.0}), {"plot_densities": 1}),
        (edited("evaluation.plots.densities", {"dpi": 100}), {"plot_densities": 1}),
        (edited("evaluation.card_images", 5), {"dataset_card": 2}),
        (edited("evaluation.bootstrap.resamples", 30), {"baselines": 4} | MAIN_HEADS | ABLATIONS | SUMMARIES),
        (
            edited("evaluation.neighbours", {"backend": "faiss"}),
            {"neighbours": 4, "baselines": 4} | MAIN_HEADS | ABLATIONS | SUMMARIES,
        ),
        (edited("backbones.vit.image_size", 48), SECOND_BACKBONE),
        (
            edited("features.centre_crop", {"seed": 1}),
            # One job extracts the clean and the cropped view of an image that it decodes once.
            {"evaluation_features": 4, "cache": 8, "neighbours": 4, "baselines": 4, "projection": 1}
            | MAIN_HEADS
            | ABLATIONS
            | SUMMARIES,
        ),
        # How the work is spread over processes changes no result.
        (edited("features.workers", 3), {}),
        (edited("dask.scheduler", "processes"), {}),
        # What is equal is equal, however it is written.
        (dict(reversed(TINY_WORLD.items())), {}),
        # The table's rows have the order of the config.
        (reordered(), {"table_ablations": 1}),
        (edited("training.margin", 0.1), {}),
    ],
    ids=[
        "add a seed",
        "add a downstream dataset",
        "define an unused dataset",
        "more epochs",
        "learning rate",
        "margin of a variant",
        "an ablation",
        "learning rate of joint training",
        "share of the safe retrieval",
        "add a variant",
        "checkpoints without their backbone",
        "another task loss",
        "temperature of task losses that nothing reads",
        "error to calibrate for",
        "width of a plot",
        "resolution of a plot",
        "images of a card",
        "bootstrap resamples",
        "neighbour backend",
        "image size of a backbone",
        "seed of the crops",
        "number of workers",
        "scheduler of dask",
        "order of keys",
        "order of keys at any depth",
        "a default spelt out",
    ],
)
def test_an_edit_of_the_config_reruns_exactly(
    world: Workflow, config: dict[str, Any], expected: dict[str, int]
) -> None:
    world.write_config(config)
    assert world.planned() == expected


def test_statistics_of_features_are_made_on_request_and_the_scheduler_makes_none_of_them_stale(world: Workflow) -> None:
    folder = world.directory / "results/feature_statistics"
    assert not folder.exists()  # no part of the default target
    wanted = "results/feature_statistics/vit/greek/test/eval/manifest.json"
    assert world.planned("feature_statistics") == {"feature_statistics_of_view": 2 * 3, "feature_statistics": 1}
    try:
        world.snakemake(wanted)
        world.write_config(edited("dask.scheduler", "processes"))
        assert world.planned(wanted) == {}
    finally:
        shutil.rmtree(folder)


def test_a_change_on_the_command_line_counts_like_one_in_the_file(world: Workflow) -> None:
    assert world.planned("--config", "seeds=[1,2]") == EVERY_HEAD


def test_what_jobs_ask_of_a_scheduler_makes_nothing_stale(world: Workflow) -> None:
    asked = ("head:mem_mb=1", "features:runtime=5", "backbone:gpu=2", "features:cpus_per_task=9")
    assert world.planned("--default-resources", "mem_mb=1", "--set-resources", *asked) == {}


LIBRARY_EDITS = {
    "plots/zero_shot.py": {"plot_zero_shot": 1},
    "tables/zero_shot.py": {"table_zero_shot": 1},
    "heads/schedule.py": EVERY_HEAD,
    "heads/numpy_head.py": EVERY_HEAD | JOINT_TRAINING,  # scores in evaluation, its constants in training
    "retrieval/neighbours.py": {"neighbours": 4, "baselines": 4} | MAIN_HEADS | ABLATIONS | SUMMARIES | JOINT_TRAINING,
    "evaluation/heads.py": MAIN_HEADS | ABLATIONS | SUMMARIES,
    "evaluation/aggregate.py": VIEWS_OF_METRICS,
    "pretrained/card.py": {"export": 2},
    "pretrained/model.py": {},  # loads checkpoints, writes none
    "datasets/digits.py": {},  # a kind that this world doesn't use
    "backbones/custom.py": {},
    "task_losses/losses.py": {},  # computed for variants that this world doesn't have
    "calibration/calibrator.py": {},  # made on demand
}


@pytest.mark.parametrize(("module", "expected"), LIBRARY_EDITS.items(), ids=LIBRARY_EDITS)
def test_an_edit_of_the_library_reruns_exactly_the_stages_that_import_it(
    world: Workflow, module: str, expected: dict[str, int]
) -> None:
    path = world.directory / "pipeline_lib" / module
    text = path.read_text()
    try:
        path.write_text(text + "\n\n_EDITED = True\n")
        assert world.planned() == expected
        documented = re.sub(r'^"""', '"""Explained anew. ', text, count=1) + "\n# a comment\n"
        path.write_text(documented)
        assert world.planned() == {}
    finally:
        path.write_text(text)


def test_a_wrong_config_stops_before_any_job_with_one_line(world: Workflow) -> None:
    world.write_config(edited("training.learning_rat", 1))
    result = world.snakemake(check=False)
    lines = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
    assert result.returncode != 0
    assert len(lines) == 1, lines
    assert "training.learning_rat: unknown key" in lines[0]
    assert "did you mean 'learning_rate'?" in lines[0]


def test_two_values_swapped_between_keys_are_noticed(world: Workflow) -> None:
    """Snakemake compares parameters as an unnamed set; one sorted-JSON string keeps the names."""
    config = copy.deepcopy(TINY_WORLD)
    config["training"]["batch_size"], config["training"]["episode_samples"] = 100, 32
    world.write_config(config)
    assert world.planned() == EVERY_HEAD


def test_a_run_elsewhere_finds_its_code(world: Workflow, tmp_path: Path) -> None:
    result = world.snakemake("-n", "--directory", str(tmp_path))
    assert "Job stats" in result.stdout + result.stderr
