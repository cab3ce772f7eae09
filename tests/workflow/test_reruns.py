"""Only stale stages run: each edit of the config or the code, and exactly the jobs that it makes stale."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.conftest import TINY_WORLD, Workflow

VIEWS_OF_METRICS = {
    "metrics": 1,
    "table_zero_shot": 1,
    "table_all_metrics": 1,
    "plot_zero_shot": 1,
    "plot_recall_vs_auroc": 1,
    "plot_densities": 1,
}
# The examples are a view of the scores of single images.
SUMMARIES = VIEWS_OF_METRICS | {"plot_examples": 1}
PLOTS_AND_CURVES = SUMMARIES | {"plot_training_curves": 1}
# Two backbones; per backbone the upstream and one downstream set. The examples show the first backbone only.
EVERY_HEAD = {"head": 2, "evaluate": 4} | PLOTS_AND_CURVES
SECOND_BACKBONE = {"backbone": 1, "features": 6, "cache": 5, "neighbours": 2, "head": 1, "baselines": 2, "evaluate": 2}
SECOND_BACKBONE |= {rule: 1 for rule in PLOTS_AND_CURVES if rule != "plot_examples"}


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


def test_a_second_run_has_nothing_to_do(world: Workflow) -> None:
    result = world.snakemake()
    assert "Nothing to be done" in result.stdout + result.stderr


NEW_DATASET = {"kind": "glyphs", "script": "armenian", "image_size": 32, "per_class": {"test": 2}}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # One more head per backbone is trained; every set is scored again, since a score file holds all seeds.
        (edited("seeds", [1, 2]), EVERY_HEAD),
        # The number of its blocks is known once it is indexed, so `features` isn't planned yet.
        (
            edited("datasets.armenian", NEW_DATASET) | {"downstream": ["greek", "armenian"]},
            {"dataset": 1, "cache": 4, "neighbours": 2, "baselines": 2, "evaluate": 2}
            | SUMMARIES
            | {"plot_training_curves": 1},
        ),
        # A dataset that nothing uses.
        (edited("datasets.armenian", NEW_DATASET), {}),
        # Epochs 2 and 3 are one more block of each range of images (248 images in blocks of 200); eval views stay.
        (edited("features.views.train.epochs", 4), {"features": 4, "cache": 2} | EVERY_HEAD),
        (edited("training.learning_rate", 0.002), EVERY_HEAD),
        (edited("variants.default", {"training": {"margin": 0.2}}), EVERY_HEAD),
        (
            edited("variants.narrow", {"training": {"hidden": [8]}}),
            {"head": 2, "evaluate": 4} | PLOTS_AND_CURVES,
        ),
        (edited("evaluation.plots.densities", {"width": 5.0}), {"plot_densities": 1}),
        (edited("evaluation.plots.densities", {"dpi": 100}), {"plot_densities": 1}),
        (edited("evaluation.bootstrap.resamples", 30), {"baselines": 4, "evaluate": 4} | SUMMARIES),
        (
            edited("evaluation.neighbours", {"backend": "faiss"}),
            {"neighbours": 4, "baselines": 4, "evaluate": 4} | SUMMARIES,
        ),
        (edited("backbones.vit.image_size", 48), SECOND_BACKBONE),
        (
            edited("features.centre_crop", {"seed": 1}),
            {"features": 4, "cache": 4, "baselines": 4, "evaluate": 4} | SUMMARIES,
        ),
        # How the work is spread over processes changes no result.
        (edited("features.workers", 3), {}),
        # What is equal is equal, however it is written.
        (dict(reversed(TINY_WORLD.items())), {}),
        (edited("training.margin", 0.1), {}),
    ],
    ids=[
        "add a seed",
        "add a downstream dataset",
        "define an unused dataset",
        "more epochs",
        "learning rate",
        "margin of a variant",
        "add a variant",
        "width of a plot",
        "resolution of a plot",
        "bootstrap resamples",
        "neighbour backend",
        "image size of a backbone",
        "seed of the crops",
        "number of workers",
        "order of keys",
        "a default spelt out",
    ],
)
def test_an_edit_of_the_config_reruns_exactly(
    world: Workflow, config: dict[str, Any], expected: dict[str, int]
) -> None:
    world.write_config(config)
    assert world.planned() == expected


def test_a_change_on_the_command_line_counts_like_one_in_the_file(world: Workflow) -> None:
    assert world.planned("--config", "seeds=[1,2]") == EVERY_HEAD


LIBRARY_EDITS = {
    "plots/densities.py": {"plot_densities": 1},
    "tables/zero_shot.py": {"table_zero_shot": 1},
    "heads/schedule.py": EVERY_HEAD,
    "heads/numpy_head.py": EVERY_HEAD,  # scores in evaluation, its constants in training
    "retrieval/neighbours.py": {"neighbours": 4, "baselines": 4, "evaluate": 4} | SUMMARIES,
    "evaluation/heads.py": {"evaluate": 4} | SUMMARIES,
    "evaluation/aggregate.py": VIEWS_OF_METRICS,
    "datasets/digits.py": {},  # a kind that this world doesn't use
    "backbones/custom.py": {},
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
