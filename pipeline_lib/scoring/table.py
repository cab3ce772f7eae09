"""The table of scores: one row per image, in the order of the list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline_lib.core.artefacts import writing_file
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.scoring.images import ImageList

_MARK = b"pretrained_visual_uncertainties"


def score_table(images: ImageList, scores: pa.Table) -> pa.Table:
    """Return the table: `path`, `label`, `uncertainty_seed<k>`, `uncertainty`, `rank`, `error`.

    Ranks are int64, from 1 for the lowest uncertainty; of equal ones, the image that is listed first has the lower
    rank. Rank and uncertainties are null where `error` says why an image can't be read.

    Parameters
    ----------
    images
        The images.
    scores
        A row per image, as `score_images` keeps them.
    """
    readable = np.flatnonzero(pc.is_null(scores["error"]).to_numpy())
    uncertainty = scores["uncertainty"].to_numpy()[readable]
    rank = np.zeros(len(images), np.int64)
    rank[readable[np.argsort(uncertainty, kind="stable")]] = np.arange(1, len(readable) + 1)
    columns = {"path": images.path, "label": images.label}
    columns |= {name: scores[name] for name in scores.column_names if name != "error"}
    columns |= {"rank": pa.array(rank, mask=rank == 0), "error": scores["error"]}
    return pa.table(columns).replace_schema_metadata({_MARK: b"scores"})


def write_scores(table: pa.Table, path: Path) -> None:
    """Write the table as Parquet, whole or not at all."""
    with writing_file(path, "wb") as file:
        pq.write_table(table, file)


def require_replaceable(path: Path) -> None:
    """Raise `PipelineError` unless a path ends in .parquet and no file is there, or one that `write_scores` wrote."""
    if path.suffix.lower() != ".parquet":
        raise PipelineError(f"{path}: the table is written as Parquet; choose a name that ends in .parquet")
    if not path.exists():
        return
    try:
        is_ours = _MARK in (pq.read_schema(path).metadata or {})
    except (pa.ArrowInvalid, OSError):
        is_ours = False
    if not is_ours:
        raise PipelineError(f"{path}: exists, and is no table of scores; choose another --out, or move it away")
