"""Only what is stale is made again: each edit of config, data or code, and exactly the artefacts that it makes stale.

The graph's verdict is asked in this process, for many edits; that Snakemake plans exactly what the graph says is asked
of Snakemake for some.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

from pipeline_lib.config.load import parse_config
from pipeline_lib.stages.graph import Graph
from pipeline_lib.stages.targets import targets
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
# Whatever is gathered from metric rows, and what is gathered from scores of the first backbone.
TABLES = ("ablations", "all_metrics", "compat", "published", "safe_retrieval", "selective", "zero_shot")
FIGURES = ("deteriorations", "densities", "human_ambiguity", "projection", "recall_vs_auroc", "zero_shot")
VIEWS: Stale = {"metrics": 1, "provenance": 1, "export": 2} | {f"table {name}": 1 for name in TABLES}
VIEWS |= {f"figure {name}": 1 for name in FIGURES}
OF_SCORES: Stale = {f"figure {name}": 1 for name in ("examples", "risk_coverage")}
OF_SAFE_RETRIEVAL: Stale = {f"figure safe_retrieval_{name}": 1 for name in ("curves", "surface")}
# Two backbones, each evaluated upstream and on one downstream set; three ablations on the latter, of one backbone.
OF_MAIN_HEADS: Stale = {"safe_retrieval": 4, "deteriorations": 1, "projection_page": 1} | OF_SCORES | OF_SAFE_RETRIEVAL
EVERY_HEAD: Stale = {"head": 5, "evaluate_heads": 7, "figure training_curves": 1} | OF_MAIN_HEADS | VIEWS
MAIN_HEADS: Stale = EVERY_HEAD | {"head": 2, "evaluate_heads": 4}

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
    "learning rate": (edited("training.learning_rate", 0.002), EVERY_HEAD),
    "margin of a variant": (edited("variants.default", {"training": {"margin": 0.2}}), MAIN_HEADS),
}


@pytest.mark.parametrize("name", CONFIG_EDITS)
def test_an_edit_of_the_config_makes_exactly_this_stale(tiny: Workflow, name: str) -> None:
    config, expected = CONFIG_EDITS[name]
    assert stale(tiny, config) == expected
