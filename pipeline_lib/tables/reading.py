"""Per-image files of the artefacts that tables and figures are made from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.core.artefacts import file_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from pipeline_lib.tables.summary import EvaluationSet


def read_sets(
    folders: Iterable[Path], sets: Iterable[EvaluationSet], file: str = "scores.parquet", **expected: object
) -> dict[EvaluationSet, pd.DataFrame]:
    """Return a table (Parquet or CSV) of each of several artefacts, which are of these sets in this order."""
    import pandas as pd

    read = pd.read_csv if file.endswith(".csv") else pd.read_parquet
    pairs = zip(sets, folders, strict=True)
    return {pair: read(file_of(folder, file, **expected, **pair._asdict())) for pair, folder in pairs}


def mean_uncertainty(scores: pd.DataFrame) -> np.ndarray:
    """Return the mean over the seeds of the uncertainties of images, float64 [n]; scores: of heads, per sample."""
    return scores.filter(regex="^uncertainty_seed").to_numpy("float64").mean(axis=1)
