"""The recorded versions are those of the code, and a component is known by its version only while that is so."""

from __future__ import annotations

import pytest

from pipeline_lib.core import versions
from pipeline_lib.core.code import code_digest
from pipeline_lib.stages.graph import components


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
