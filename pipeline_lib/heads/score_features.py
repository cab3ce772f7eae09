"""The uncertainties that a head gives to every row of a cache, written chunk by chunk: memory does not grow with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import dask
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.features.dask_cache import Chunk, chunks, computing, read_chunk
from pipeline_lib.heads.checkpoint import read_head
from pipeline_lib.heads.numpy_head import score

STAGE = "feature_scores"
SCORES = "scores.parquet"
SCHEMA = pa.schema({"sample_id": pa.int64(), "epoch": pa.int32(), "uncertainty": pa.float32()})


def score_features(view_dir: Path, head_dir: Path, directory: Path, scheduler: str | None) -> None:
    """Score every row of every epoch of a view with one head and write `scores.parquet`, in the order of the rows.

    Columns: `sample_id` (int64), `epoch` (int32), `uncertainty` (float32). A row group is a chunk of the cache.
    The spec in its manifest says which cache and which head: that of the cache's blocks, and the head's.
    scheduler: see `computing`; it changes no result.
    Raises `PipelineError` when the head was trained on representations of another length.
    """
    cache = FeatureCache(view_dir)
    head, manifest = read_head(head_dir)
    if head.dim != cache.dim:
        raise PipelineError(
            f"{head_dir} is a head for {head.dim} dimensions, but {view_dir} has {cache.dim}; "
            "score the cache of the backbone that the head was trained on"
        )
    spec = {"features": cache.manifest.spec["block"], "head": manifest.spec}
    with artefacts.writing(directory, STAGE, spec) as draft, computing(scheduler) as running:
        draft.add_input("cache", cache.manifest)
        draft.add_input("head", manifest)
        weights = dask.delayed(dict(head.weights))
        with pq.ParquetWriter(draft.path / SCORES, SCHEMA) as writer:
            for epoch in range(cache.epochs):
                tasks = [dask.delayed(_score_chunk)(part, cache.dim, weights) for part in chunks(cache, epoch)]
                for sample_id, uncertainty in running.in_order(tasks):
                    column = np.full(len(sample_id), epoch, np.int32)
                    writer.write_table(pa.table([sample_id, column, uncertainty], SCHEMA), row_group_size=len(column))
        draft.facts.update(rows=cache.rows * cache.epochs, images=cache.rows, epochs=cache.epochs)


def _score_chunk(part: Chunk, dim: int, weights: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return read_chunk(part, "sample_id"), score(weights, read_chunk(part, "embedding", (dim,)))
