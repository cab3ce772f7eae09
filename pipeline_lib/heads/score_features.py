"""The uncertainties that a head gives to every row of a cache, written chunk by chunk: memory does not grow with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from dask.delayed import delayed

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Job
from pipeline_lib.core.spec import Spec
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.features.dask_cache import Chunk, chunks, computing
from pipeline_lib.features.spec import CacheSpec
from pipeline_lib.heads.checkpoint import read_head
from pipeline_lib.heads.numpy_head import score
from pipeline_lib.heads.spec import HeadSpec

STAGE = "feature_scores"
SCORES = "scores.parquet"
SCHEMA = pa.schema({"sample_id": pa.int64(), "epoch": pa.int32(), "uncertainty": pa.float32()})


class ScoresSpec(Spec):
    """Which cache was scored, and with which head."""

    features: CacheSpec
    head: HeadSpec


def score_features(view_dir: Path, head_dir: Path, directory: Path, scheduler: str | None) -> None:
    """Score every row of every epoch of a view with one head and write `scores.parquet`, in the order of the rows.

    Columns: `sample_id` (int64), `epoch` (int32), `uncertainty` (float32). A row group is a chunk of `CHUNK_ROWS`.

    Parameters
    ----------
    view_dir, head_dir, directory
        The view, the head, and the folder to write.
    scheduler
        See `computing`; it changes no result.

    Raises
    ------
    PipelineError
        When the head was trained on representations of another length.
    """
    cache = FeatureCache(view_dir)
    head, manifest = read_head(head_dir)
    if head.dim != cache.dim:
        raise PipelineError(
            f"{head_dir} is a head for {head.dim} dimensions, but {view_dir} has {cache.dim}; "
            "score the cache of the backbone that the head was trained on"
        )
    inputs = {"features": (Path(view_dir) / "cache",), "head": (Path(head_dir),)}
    spec = ScoresSpec(features=cache.spec, head=HeadSpec.model_validate(manifest.spec))
    job = Job(STAGE, spec, inputs, Path(directory))
    with job.writing() as draft, computing(scheduler) as running:
        weights = delayed(dict(head.weights))
        with pq.ParquetWriter(draft.path / SCORES, SCHEMA) as writer:
            for epoch in range(cache.epochs):
                tasks = [delayed(_score_chunk)(chunk, weights) for chunk in chunks(cache, epoch)]
                for sample_id, uncertainty in running.in_order(tasks):
                    column = np.full(len(sample_id), epoch, np.int32)
                    writer.write_table(pa.table([sample_id, column, uncertainty], SCHEMA), row_group_size=len(column))
        draft.facts.update(rows=cache.rows * cache.epochs, images=cache.rows, epochs=cache.epochs)


def _score_chunk(chunk: Chunk, weights: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return chunk.read("sample_id"), score(weights, chunk.read("embedding"))
