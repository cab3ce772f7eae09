"""The evaluation sets of a spec, as tables and figures name them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib.tables.benchmark import Entry
from pipeline_lib.tables.summary import EvaluationSet


def upstream_set(spec: Mapping[str, Any]) -> EvaluationSet:
    """Return the upstream evaluation set."""
    return EvaluationSet(spec["upstream"], spec["upstream_split"])


def downstream_sets(spec: Mapping[str, Any]) -> list[EvaluationSet]:
    """Return the downstream sets, in the order of the config."""
    return [EvaluationSet(entry["dataset"], entry["split"]) for entry in spec["downstream"]]


def safe_retrieval_tables(spec: Mapping[str, Any], results: Path, file: str) -> dict[EvaluationSet, pd.DataFrame]:
    """Return `curves.csv` or `surface.csv` of every set, for the first backbone and variant of a spec."""
    folder = results / "safe_retrieval" / spec["backbones"][0] / spec["variants"][0]
    sets = [upstream_set(spec), *downstream_sets(spec)]
    return {each: pd.read_csv(folder / each.dataset / each.split / file) for each in sets}


def benchmark_entries(spec: Mapping[str, Any]) -> list[Entry]:
    """Return the rows of the benchmark: of each architecture the methods, then the pretrained heads."""
    return [
        Entry(**entry | {"backbones": {int(seed): name for seed, name in entry["backbones"].items()}})
        for entry in spec["entries"]
    ]
