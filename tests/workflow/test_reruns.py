"""Only what is stale is made again: each edit of config, data or code, and exactly the artefacts that it makes stale.

The graph's verdict is asked in this process, for many edits; that Snakemake plans exactly what the graph says is asked
of Snakemake for some.
"""

from __future__ import annotations

import copy
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline_lib.config.load import parse_config
from pipeline_lib.core import code, versions
from pipeline_lib.stages import evaluate_heads
from pipeline_lib.stages.graph import Graph
from pipeline_lib.stages.targets import targets
from tests.unit.test_core_code import CACHED
from tests.workflow.conftest import ROOT, TINY_WORLD, Workflow

Stale = dict[str, int]


def edited(path: str, value: Any) -> dict[str, Any]:
    """Return the tiny world's config with one value changed."""
    config = copy.deepcopy(TINY_WORLD)
    *parents, last = path.split(".")
    section = config
    for key in parents:
        section = section.setdefault(key, {})
    section[last] = value
    return config


def without(path: str) -> dict[str, Any]:
    """Return the tiny world's config without one key."""
    config = copy.deepcopy(TINY_WORLD)
    *parents, last = path.split(".")
    section = config
    for key in parents:
        section = section[key]
    del section[last]
    return config


def reordered() -> dict[str, Any]:
    """Return the config with every mapping in the reverse order, but for what figures show the first one of."""

    def reverse(value: Any) -> Any:
        return {key: reverse(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    return reverse(TINY_WORLD) | {key: TINY_WORLD[key] for key in ("backbones", "variants")}


def stale(world: Workflow, config: dict[str, Any] | None = None) -> Stale:
    """Return the number of artefacts by stage that are not what the config and the code ask for."""
    config = TINY_WORLD if config is None else config
    graph = Graph(
        parse_config({**config, "results_dir": str(world.directory / "results")}),
        world.directory / "results",
        ROOT / "workflow/published",
    )
    refs = graph.behind(targets(graph.config))
    names = Counter(
        f"{ref.stage} {dict(ref.wildcards)['name']}" if ref.stage in ("figure", "table") else ref.stage
        for ref in refs
        if graph.state(ref) != "fresh"
    )
    return dict(names)


def test_a_second_run_has_nothing_to_do(tiny: Workflow) -> None:
    assert stale(tiny) == {}
    result = tiny.snakemake()
    assert "Nothing to be done" in result.stdout + result.stderr
    assert " of work in " not in result.stdout + result.stderr  # no summary of nothing


NEW_DATASET = {"kind": "glyphs", "script": "armenian", "image_size": 32, "per_class": {"test": 2}}
# Whatever is gathered from metric rows, from heads, and from scores of the first backbone.
TABLES = ("ablations", "all_metrics", "compat", "safe_retrieval", "selective", "zero_shot")
FIGURES = ("classes", "deteriorations", "densities", "projection", "recall_vs_auroc", "zero_shot")
VIEWS: Stale = {"metrics": 1, "provenance": 1, "export": 2} | {f"table {name}": 1 for name in TABLES}
VIEWS |= {f"figure {name}": 1 for name in FIGURES}
CURVES: Stale = {"figure training_curves": 1}
OF_SAFE_RETRIEVAL: Stale = {f"figure safe_retrieval_{name}": 1 for name in ("curves", "surface")}
OF_SCORES: Stale = {"figure examples": 1, "figure worst_queries": 1, "figure risk_coverage": 1, "projection_page": 1}
OF_SCORES |= {"table classes": 1, "deteriorations": 1}
# Two backbones, each evaluated upstream and on one downstream set; three ablations on the latter, of one backbone.
EVERY_SCORE: Stale = {"evaluate_heads": 7, "safe_retrieval": 4} | OF_SCORES | OF_SAFE_RETRIEVAL | VIEWS
EVERY_HEAD: Stale = {"head": 5} | EVERY_SCORE | CURVES
EVERY_CACHE: Stale = {"cache": 12, "neighbours": 4, "baselines": 4, "projection": 1} | EVERY_HEAD
SECOND_BACKBONE: Stale = {"backbone": 1, "features": 6, "cache": 5, "neighbours": 2, "baselines": 2, "head": 1}
SECOND_BACKBONE |= {"evaluate_heads": 2, "safe_retrieval": 2} | VIEWS | CURVES


def with_page(expected: Stale) -> Stale:
    """Return what has a count, and the run's page, which shows every table, figure and card, with any of these."""
    shown = ("table", "figure", "dataset_card", "metrics")
    page: Stale = {"report": 1} if any(stage.split()[0] in shown for stage in expected) else {}
    return {stage: count for stage, count in (expected | page).items() if count}


CONFIG_EDITS: dict[str, tuple[dict[str, Any], Stale]] = {
    "a default spelt out": (edited("training.margin", 0.1), {}),
    "order of keys at any depth": (reordered(), {"table ablations": 1}),  # its rows have the order of the config
    "number of workers": (edited("features.workers", 3), {}),
    "scheduler of dask": (edited("dask.scheduler", "processes"), {}),
    "a dataset that nothing uses": (edited("datasets.armenian", NEW_DATASET), {}),
    "temperature of a task loss that nothing reads": (edited("task_losses.temperature", 0.5), {}),
    "error to calibrate for": (edited("evaluation.calibration.alpha", 0.1), {}),
    "width of a figure": (edited("figures.densities", {"width": 5.0}), {"figure densities": 1}),
    "resolution of a figure": (edited("figures.densities", {"dpi": 100}), {"figure densities": 1}),
    "images of a card": (edited("evaluation.card_images", 5), {"dataset_card": 2}),
    "checkpoints without their backbone": (edited("export", {"backbone": False}), {"export": 2}),
    "without joint training": (without("joint_training"), {"report": 1}),
    "a seed more": (edited("seeds", [1, 2]), EVERY_HEAD),
    "learning rate": (edited("training.learning_rate", 0.002), EVERY_HEAD),
    "margin of a variant": (
        edited("variants.default", {"training": {"margin": 0.2}}),
        EVERY_HEAD | {"head": 2, "evaluate_heads": 4},
    ),
    "an ablation": (
        edited("ablations.variants.leeway", {"training": {"leeway": 0.2}}),
        {"head": 1, "evaluate_heads": 1} | VIEWS,
    ),
    "an ablation that no other can be trained together with": (
        edited("ablations.variants.leeway", {"training": {"batch_size": 16}}),
        {"head": 1, "evaluate_heads": 1} | VIEWS,
    ),
    "an ablation more": (
        edited("ablations.variants.adam", {"training": {"optimizer": "adam"}}),
        {"head": 1, "evaluate_heads": 1} | VIEWS,
    ),
    "an ablation less": (without("ablations.variants.sgd"), VIEWS),
    "a variant more": (
        edited("variants.narrow", {"training": {"hidden": [8]}}),
        {"head": 2, "evaluate_heads": 4} | VIEWS | CURVES | {"export": 4},
    ),
    "another task loss": (
        edited("variants.neighbours", {"training": {"task_loss": "knn"}}),
        {"task_loss": 2, "head": 2, "evaluate_heads": 4} | VIEWS | CURVES | {"export": 4},
    ),
    # The number of its blocks is known once it is indexed.
    "a downstream set more": (
        edited("datasets.armenian", NEW_DATASET) | {"downstream": ["greek", "armenian"]},
        {"dataset": 1, "dataset_card": 1, "cache": 4, "neighbours": 2, "baselines": 2, "evaluate_heads": 5}
        | {"safe_retrieval": 2, "figure examples": 1, "figure risk_coverage": 1, "figure worst_queries": 1}
        | {"table classes": 1}
        | OF_SAFE_RETRIEVAL
        | VIEWS,
    ),
    # Epochs 2 and 3 are one more block of each range of images (248 images in blocks of 200); other views stay.
    "more epochs": (
        edited("features.views.train.epochs", 4),
        EVERY_HEAD | {"features": 4, "cache": 2, "head": 4, "evaluate_heads": 6},
    ),
    "learning rate of joint training": (
        edited("joint_training.options.learning_rate", 0.01),
        {"joint_training": 2, "figure joint_training": 1},
    ),
    "share of the safe retrieval": (
        edited("evaluation.safe_retrieval.table_share", 0.2),
        {"safe_retrieval": 4} | OF_SAFE_RETRIEVAL | VIEWS,
    ),
    "bootstrap resamples": (
        edited("evaluation.bootstrap.resamples", 30),
        {"baselines": 4} | EVERY_SCORE,
    ),
    "how neighbours are searched, which is exact": (edited("evaluation.neighbours", {"backend": "faiss"}), {}),
    "image size of a backbone": (edited("backbones.vit.image_size", 48), SECOND_BACKBONE),
    "a backbone less": (without("backbones.vit"), VIEWS | CURVES | {"export": 1}),
    "seed of the crops": (
        edited("features.centre_crop", {"seed": 1}),
        {"features": 4, "cache": 4, "baselines": 4} | EVERY_SCORE,
    ),
    "perplexity of a map": (
        edited("evaluation.projection", {"perplexity": 5.0}),
        {"projection": 1, "figure projection": 1, "projection_page": 1},
    ),
    # What follows from the blocks is pending: it ends as soon as it is found that their rows are the same.
    "size of blocks": (
        edited("features.block_samples", 100),
        EVERY_CACHE | {"features": 24},
    ),
}


@pytest.mark.parametrize("name", CONFIG_EDITS)
def test_an_edit_of_the_config_makes_exactly_this_stale(tiny: Workflow, name: str) -> None:
    config, expected = CONFIG_EDITS[name]
    assert stale(tiny, config) == with_page(expected)


def test_two_values_swapped_between_keys_are_noticed(tiny: Workflow) -> None:
    config = copy.deepcopy(TINY_WORLD)
    config["training"]["batch_size"], config["training"]["episode_samples"] = 100, 32
    assert stale(tiny, config) == with_page(EVERY_HEAD)


def test_the_order_of_seeds_changes_nothing() -> None:
    specs = [
        evaluate_heads.Spec.of(parse_config(edited("seeds", seeds)), "vit", "default", "greek", "test")
        for seeds in ([1, 2, 3], [3, 1, 2])
    ]
    assert specs[0] == specs[1]


def replace(old: str, new: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        assert old in text, old
        return text.replace(old, new, 1)

    return edit


def append(text: str) -> Callable[[str], str]:
    return lambda before: before + text


LOGIC, COMMENT = append("\n\n_EDITED = True\n"), append("\n\n# A comment.\n")
ALL_FIGURES: Stale = VIEWS | OF_SCORES | OF_SAFE_RETRIEVAL | CURVES | {"figure joint_training": 1}
ALL_FIGURES = {name: count for name, count in ALL_FIGURES.items() if name.startswith("figure")}

CODE_EDITS: dict[str, tuple[str, Callable[[str], str], Stale]] = {
    "text of an error": ("core/errors.py", replace("did you mean", "perhaps you mean"), {}),
    "text of an error in a hot loop": (
        "heads/train.py",
        replace("raise PipelineError(", "raise PipelineError('!' + "),
        {},
    ),
    "docstring": ("heads/stack.py", replace('"""', '"""Explained anew. '), {}),
    "comment": ("features/extract.py", COMMENT, {}),
    "progress": ("stages/features.py", replace(" on {specs[0].dataset}", " of {specs[0].dataset}"), {}),
    "a dataset kind that this world doesn't use": ("datasets/digits.py", LOGIC, {}),
    "a method": ("methods/hib.py", LOGIC, {}),
    "a backbone kind": ("backbones/custom.py", LOGIC, {}),
    "a task loss that nothing reads": ("task_losses/knn.py", LOGIC, {}),
    "calibration, made on demand": ("calibration/calibrator.py", LOGIC, {}),
    "loading of checkpoints": ("checkpoints/model.py", LOGIC, {}),
    "a figure": ("figures/zero_shot.py", LOGIC, {"figure zero_shot": 1}),
    "the look of figures": ("figures/style.py", LOGIC, ALL_FIGURES | {"projection_page": 1, "dataset_card": 2}),
    "the page of a run": ("pages/run.py", LOGIC, {"report": 1}),
    "a table": ("tables/zero_shot.py", LOGIC, {"table zero_shot": 1}),
    "the model card": ("checkpoints/card.py", LOGIC, {"export": 2}),
    "the order loss": ("heads/losses/order.py", LOGIC, EVERY_HEAD),
    "the loss of joint training": (
        "heads/losses/squared_error.py",
        LOGIC,
        {"joint_training": 2, "figure joint_training": 1},
    ),
    "the gathering of metrics": ("evaluation/aggregate.py", LOGIC, VIEWS),
    "maps": ("evaluation/projection.py", LOGIC, {"projection": 1, "figure projection": 1, "projection_page": 1}),
}


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the library, whose code counts instead of that which runs."""
    copied = tmp_path / "pipeline_lib"
    shutil.copytree(ROOT / "pipeline_lib", copied)
    monkeypatch.setattr(code, "_ROOT", copied)
    forget_code()
    yield copied
    forget_code()


def forget_code() -> None:
    for function in (*CACHED, versions.version_of):
        function.cache_clear()


@pytest.mark.parametrize("name", CODE_EDITS)
def test_an_edit_of_the_code_makes_exactly_this_stale(tiny: Workflow, library: Path, name: str) -> None:
    module, edit, expected = CODE_EDITS[name]
    path = library / module
    path.write_text(edit(path.read_text()))
    assert stale(tiny) == with_page(expected)


@pytest.mark.parametrize("room", ["heads/losses", "task_losses", "figures", "tables", "metrics", "datasets", "methods"])
def test_a_file_more_makes_nothing_stale_that_does_not_use_it(tiny: Workflow, library: Path, room: str) -> None:
    (library / room / "brand_new.py").write_text('"""New."""\n\nCONSTANT = 1\n')
    assert stale(tiny) == {}


TOGETHER = {
    "a seed more": {"heads": 1, "head": 2},
    "perplexity of a map": {"projection": 1},
    "an ablation more": {"head": 1},
}


@pytest.mark.parametrize("name", TOGETHER)
def test_snakemake_plans_what_the_graph_says(tiny: Workflow, name: str) -> None:
    """Heads that read the same cache are one job."""
    config, expected = CONFIG_EDITS[name]
    tiny.write_config(config)
    try:
        planned = tiny.planned()
    finally:
        tiny.write_config(TINY_WORLD)
    assert {rule: count for rule, count in planned.items() if rule in TOGETHER[name]} == TOGETHER[name]
    same = {stage.replace(" ", "_"): count for stage, count in with_page(expected).items()}
    for together in ("head", "heads", "evaluate_heads", "evaluations"):
        same.pop(together, None), planned.pop(together, None)
    assert planned == same


def test_rows_that_are_cut_otherwise_are_found_to_be_the_same(tiny: Workflow, tmp_path: Path) -> None:
    world = tiny.copy(tmp_path / "copy")
    head = "results/heads/vit/default/seed1/manifest.json"
    before = (world.directory / head).stat().st_mtime_ns, (world.directory / head).with_name("head.safetensors").stat()
    world.write_config(edited("features.block_samples", 100))
    result = world.snakemake(head)
    said = result.stdout + result.stderr
    assert "results/heads/vit/default/seed1: what it is made from has not changed" in said
    after = (world.directory / head).with_name("head.safetensors").stat()
    assert after.st_ino == before[1].st_ino and after.st_mtime_ns == before[1].st_mtime_ns
    assert world.planned(head) == {}


def test_a_comment_in_the_users_table_ends_at_the_index(tiny: Workflow, tmp_path: Path) -> None:
    """The index is made again and is the same, so nothing that was made from it is touched."""
    world = Workflow(tmp_path)
    table, images = tmp_path / "data/labels.csv", tmp_path / "data/images"
    images.mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (8, 8), (number * 50, 0, 0)).save(images / f"{number}.png")
    table.write_text("path,label\n" + "".join(f"{number}.png,{'ab'[number % 2]}\n" for number in range(4)))
    own = {"kind": "table", "path": "labels.csv", "images": "images", "label_column": "label", "split": "test"}
    config = edited("datasets.own", own) | {"downstream": ["own"]}
    del config["evaluation"]["deteriorated"]
    world.write_config(config)
    card = "results/cards/own/manifest.json"
    world.snakemake("results/cards/own/manifest.json")
    made = (tmp_path / card).read_bytes()
    table.write_text(table.read_text() + "\n")
    planned = world.planned(card)
    assert planned["dataset"] == 1
    world.snakemake(card)
    assert (tmp_path / card).read_bytes() == made and world.planned(card) == {}


def test_statistics_of_features_are_made_on_request_and_the_scheduler_makes_none_of_them_stale(tiny: Workflow) -> None:
    folder = tiny.directory / "results/feature_statistics"
    assert not folder.exists()  # no part of the default target
    wanted = "results/feature_statistics/vit/greek/test/eval/manifest.json"
    assert tiny.planned("feature_statistics") == {"feature_statistics_of_view": 2 * 3, "feature_statistics": 1}
    try:
        tiny.snakemake(wanted)
        tiny.write_config(edited("dask.scheduler", "processes"))
        assert tiny.planned(wanted) == {}
    finally:
        tiny.write_config(TINY_WORLD)
        shutil.rmtree(folder)


def test_what_jobs_ask_of_a_scheduler_makes_nothing_stale(tiny: Workflow) -> None:
    asked = ("head:mem_mb=1", "training_features:runtime=5", "backbone:gpu=2", "training_features:cpus_per_task=9")
    assert tiny.planned("--default-resources", "mem_mb=1", "--set-resources", *asked) == {}


def test_a_change_on_the_command_line_counts_like_one_in_the_file(tiny: Workflow) -> None:
    assert "projection" in tiny.planned("--config", "evaluation={'projection': {'perplexity': 5.0}}")


def test_a_wrong_config_stops_before_any_job_with_one_line(tiny: Workflow) -> None:
    tiny.write_config(edited("training.learning_rat", 1))
    try:
        result = tiny.snakemake(check=False)
    finally:
        tiny.write_config(TINY_WORLD)
    (line,) = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
    assert result.returncode != 0
    assert "training.learning_rat: unknown key" in line
    assert "did you mean 'learning_rate'?" in line
