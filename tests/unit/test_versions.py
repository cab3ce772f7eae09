"""The recorded versions are those of the code, and a component is known by its version only while that is so."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_lib.config.load import load_config
from pipeline_lib.core import versions
from pipeline_lib.core.code import code_digest
from pipeline_lib.stages.graph import Graph, components
from pipeline_lib.stages.targets import targets

ROOT = Path(__file__).parents[2]


def test_the_record_is_in_step_with_the_code() -> None:
    """Otherwise every result that the component made would be stale in every checkout: run `make bless`."""
    recorded = versions.recorded()
    changed = [name for name in components() if name not in recorded or recorded[name].code != code_digest(name)]
    assert changed == [], "run: make bless"
    assert recorded.keys() == set(components())


def test_a_local_edit_stands_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    name = components()[0]
    before = versions.recorded()[name]
    versions.version_of.cache_clear()
    assert versions.version_of(name) == str(before.version)
    versions.version_of.cache_clear()
    monkeypatch.setattr(versions, "code_digest", lambda component: "edited")
    assert versions.version_of(name) == "edited"
    versions.version_of.cache_clear()


@pytest.mark.parametrize("world", ["config.yaml", "workflow/configs/tiny.yaml", "workflow/configs/url_mini.yaml"])
def test_every_component_of_a_job_has_a_version(world: str) -> None:
    """One without would be known by its code alone: every release would make its results stale."""
    config = load_config(ROOT / world)
    graph = Graph(config, Path("nowhere"), ROOT / "workflow/published", plans=False)
    named = {component for ref in graph.behind(targets(config)) for component in graph.code(ref)}
    assert named - versions.recorded().keys() == set()
