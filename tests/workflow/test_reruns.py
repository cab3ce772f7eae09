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
