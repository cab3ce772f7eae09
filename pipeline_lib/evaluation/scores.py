"""The evaluation artefact: `scores.parquet`, one row per image, and `metrics.csv`, one row per value.

That of the baselines also has `resampled.parquet`: the R-AUROC of each baseline on each bootstrap resample, with which
those of heads are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.core.errors import ArtefactError, one_of
from pipeline_lib.core.jobs import Job
from pipeline_lib.evaluation.metric_rows import write_metric_rows
from pipeline_lib.retrieval.store import read_columns

STAGES = ("baselines", "evaluate_heads")
SCORES = "scores.parquet"
METRICS = "metrics.csv"
RESAMPLED = "resampled.parquet"


@dataclass(frozen=True)
class Scores:
    """The per-image columns of an evaluation artefact, by name."""

    manifest: Manifest
    columns: Mapping[str, np.ndarray]

    def __getitem__(self, column: str) -> np.ndarray:
        """Return a column; raises `ArtefactError` naming the artefact when it has none of that name."""
        if column not in self.columns:
            raise ArtefactError(
                f"{self.manifest.directory / SCORES}: has no column '{column}'; it has {', '.join(self.columns)}"
            )
        return self.columns[column]

    def of_seeds(self, seeds: Iterable[int]) -> dict[int, np.ndarray]:
        """Return the uncertainties of heads, float32 [n], by seed."""
        return {seed: self[f"uncertainty_seed{seed}"] for seed in seeds}

    def get(self, column: str) -> np.ndarray | None:
        """Return a column, or None where there is none of that name."""
        return self.columns.get(column)


def write_evaluation(
    job: Job[Any],
    columns: Mapping[str, np.ndarray],
    rows: list[dict[str, Any]],
    resampled: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write an evaluation artefact.

    Parameters
    ----------
    job
        Which.
    columns
        Per-image values [n], by name.
    rows
        Metric rows.
    resampled
        The R-AUROC on each resample, float64 [resamples], by baseline.
    """
    with job.writing() as draft:
        pq.write_table(pa.table(dict(columns)), draft.path / SCORES)
        write_metric_rows(pd.DataFrame(rows), draft.path / METRICS)
        if resampled is not None:
            pq.write_table(pa.table(dict(resampled)), draft.path / RESAMPLED)
        draft.facts.update(rows=len(next(iter(columns.values()))), columns=list(columns))


def read_scores(directory: Path, expected: Mapping[str, Any]) -> Scores:
    """Read the per-image scores; raises `ArtefactError` when they are damaged or not the `expected` ones."""
    manifest = artefacts.read(directory, expected=expected)
    if manifest.stage not in STAGES:
        raise ArtefactError(f"{directory}: made by stage '{manifest.stage}', but {one_of(STAGES)} was asked for")
    return Scores(manifest, read_columns(Path(directory) / SCORES))


def read_resampled(scores: Scores) -> dict[str, np.ndarray]:
    """Read the R-AUROC of each baseline on each resample, float64 [resamples], from the baselines' artefact."""
    return read_columns(scores.manifest.directory / RESAMPLED)
