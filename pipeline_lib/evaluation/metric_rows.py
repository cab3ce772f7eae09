"""Tidy metric rows: one value per row, in the columns of `results/metrics.csv`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.evaluation.spec import EvaluationSpec
from pipeline_lib.metrics.metric import Value

COLUMNS = ["backbone", "method", "variant", "seed", "dataset", "split", "metric", "value", "n"]


def metric_rows(
    spec: EvaluationSpec, method: str, seed: int | None, metrics: Mapping[str, Value]
) -> list[dict[str, Any]]:
    """Return one row per metric."""
    common = {
        "backbone": spec.backbone,
        "method": method,
        "variant": spec.variant or "",
        "seed": seed,
        "dataset": spec.dataset,
        "split": spec.split,
    }
    return [{**common, "metric": metric, "value": value, "n": n} for metric, (value, n) in metrics.items()]


def write_metric_rows(rows: pd.DataFrame, target: Any) -> None:
    """Write rows as CSV to a path or an open file; what is missing or NaN becomes an empty field."""
    table = rows.astype({"seed": "Int64", "value": "float64", "n": "Int64"})
    table.to_csv(target, columns=COLUMNS, index=False, lineterminator="\n")


def read_metric_rows(path: Path) -> pd.DataFrame:
    """Read metric rows. Text is never taken for a missing value: a dataset may be called NA.

    Raises `PipelineError` when it is no such table; further columns are kept as text.
    """
    try:
        return _parsed(path)
    except ValueError as error:  # also of pandas: no columns, other delimiters, no text
        raise PipelineError(f"{path}: not a table of metric rows ({' '.join(str(error).split())})") from None


def _parsed(path: Path) -> pd.DataFrame:
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [column for column in COLUMNS if column not in rows.columns]:
        raise PipelineError(f"{path}: no column '{missing[0]}'; metric rows have the columns {', '.join(COLUMNS)}")
    for column in ("seed", "n"):
        rows[column] = pd.to_numeric(rows[column].replace("", None)).astype("Int64")
    rows["value"] = pd.to_numeric(rows["value"].replace("", None)).astype(np.float64)
    return rows
