"""An evaluation on disk: per-sample scores and tidy metric rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib import artefacts
from pipeline_lib.artefacts import Manifest
from pipeline_lib.errors import ArtefactError

STAGE = "evaluation"
SCORES = "scores.parquet"
METRICS = "metrics.csv"
COLUMNS = ["backbone", "method", "variant", "seed", "dataset", "split", "metric", "value", "n"]


class MetricRows:
    """Collects the tidy rows of one evaluation: one row per value."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._spec = spec
        self._rows: list[dict[str, Any]] = []

    def add(
        self, method: str, values: Mapping[str, tuple[float, int]], variant: str = "", seed: int | None = None
    ) -> None:
        """Add the values {metric: (value, number of images)} of one method, or of one seed of it."""
        for metric, (value, n) in values.items():
            self._rows.append(
                {
                    "backbone": self._spec["backbone"],
                    "method": method,
                    "variant": variant,
                    "seed": seed,
                    "dataset": self._spec["dataset"],
                    "split": self._spec["split"],
                    "metric": metric,
                    "value": value,
                    "n": n,
                }
            )

    def table(self) -> pd.DataFrame:
        """Return the rows as a table; `seed` is a nullable integer."""
        return pd.DataFrame(self._rows, columns=COLUMNS).astype({"seed": "Int64"})


def write_evaluation(
    directory: Path,
    spec: Mapping[str, Any],
    scores: pd.DataFrame,
    rows: MetricRows,
    inputs: Mapping[str, Manifest],
) -> None:
    """Write `scores.parquet` (one row per image) and `metrics.csv`."""
    with artefacts.writing(directory, STAGE, spec) as draft:
        for name, manifest in inputs.items():
            draft.add_input(name, manifest)
        scores.to_parquet(draft.path / SCORES, index=False)
        rows.table().to_csv(draft.path / METRICS, index=False)
        draft.facts["rows"] = len(scores)


def read_scores(directory: Path, **expected: Any) -> tuple[pd.DataFrame, Manifest]:
    """Read the per-sample scores of an evaluation; `expected` are keys of its spec that must match."""
    manifest = artefacts.read(directory, STAGE, expected)
    return pd.read_parquet(Path(directory) / SCORES), manifest


def require_same_images(first: Any, second: Any, what: str) -> None:
    """Raise `ArtefactError` unless two artefacts hold the same images in the same order (their `sample_id`)."""
    if len(first) != len(second) or (first != second).any():
        raise ArtefactError(
            f"{what} don't hold the same images ({len(first)} and {len(second)}); delete both and run snakemake again"
        )
