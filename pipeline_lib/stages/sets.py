"""The evaluation sets of a spec, as tables and figures name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline_lib.tables.summary import EvaluationSet


def upstream_set(spec: Mapping[str, Any]) -> EvaluationSet:
    """Return the upstream evaluation set."""
    return EvaluationSet(spec["upstream"], spec["upstream_split"])


def downstream_sets(spec: Mapping[str, Any]) -> list[EvaluationSet]:
    """Return the downstream sets, in the order of the config."""
    return [EvaluationSet(entry["dataset"], entry["split"]) for entry in spec["downstream"]]
