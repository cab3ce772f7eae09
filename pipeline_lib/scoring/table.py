"""The table of scores: one row per image, in the order of the list."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline_lib.core.artefacts import writing_file
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.ownership import require_replaceable_file
from pipeline_lib.scoring.images import ImageList

_MARK = b"pretrained_visual_uncertainties"
_REPRESENTATIONS = b"representations"


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


def write_scores(table: pa.Table, path: Path, representations: Path | None = None) -> None:
    """Write the table as Parquet, whole or not at all; it names the array of representations that belongs to it."""
    name = "" if representations is None else _relative(representations, path)
    metadata = {**(table.schema.metadata or {}), _REPRESENTATIONS: name.encode()}
    with writing_file(path, "wb") as file:
        pq.write_table(table.replace_schema_metadata(metadata), file)


def require_replaceable_scores(path: Path, representations: Path | None = None) -> None:
    """Raise `PipelineError` unless the table and its array can be written: new, or those of an earlier scoring.

    An array is known by the table beside it, which names it and was written after it.
    """
    if path.suffix.lower() != ".parquet":
        raise PipelineError(f"{path}: the table is written as Parquet; choose a name that ends in .parquet")
    require_replaceable_file(path, "a table of scores", lambda path: _MARK in _metadata(path))

    def is_named(array: Path) -> bool:
        name = _metadata(path).get(_REPRESENTATIONS, b"").decode()
        return name == _relative(array, path) and array.stat().st_mtime <= path.stat().st_mtime

    if representations is not None:
        require_replaceable_file(representations, f"the array of representations that {path} names", is_named)


def _relative(array: Path, table: Path) -> str:
    return os.path.relpath(array.resolve(), table.parent.resolve())


def _metadata(path: Path) -> dict[bytes, bytes]:
    """Return the metadata of a Parquet file; raises `ValueError` or `OSError` for another file."""
    return pq.read_schema(path).metadata or {}
