"""Files of the artefacts that figures are drawn from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.core import artefacts

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.tables.summary import EvaluationSet


def checked(folder: Path, file: str, **expected: object) -> Path:
    """Return the path of a file of an artefact.

    Raises `ArtefactError` when the artefact is damaged, or its spec has other values than the `expected` ones.
    """
    artefacts.read(folder, expected=expected)
    return Path(folder) / file


def read_sets(
    folders: Iterable[Path], sets: Iterable[EvaluationSet], file: str = "scores.parquet", **expected: object
) -> dict[EvaluationSet, pd.DataFrame]:
    """Return a table (Parquet or CSV) of each of several artefacts, which are of these sets in this order."""
    import pandas as pd

    read = pd.read_csv if file.endswith(".csv") else pd.read_parquet
    pairs = zip(sets, folders, strict=True)
    return {pair: read(checked(folder, file, **expected, **pair._asdict())) for pair, folder in pairs}
