"""The heads of a variant, and their uncertainties of a whole cache."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline_lib.core.cores import usable_cores
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Job
from pipeline_lib.evaluation.spec import DeteriorationsSpec, HeadsSpec
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.heads.checkpoint import TrainedHead, read_head
from pipeline_lib.heads.numpy_head import score

_BLOCK_ROWS = 16_384
_PIECE_ROWS = 4096


def read_heads(job: Job[HeadsSpec] | Job[DeteriorationsSpec]) -> dict[int, TrainedHead]:
    """Read the head of each seed of a job; raises `ArtefactError` naming one that is of something else."""
    spec, folders = job.spec, job.all_inputs("heads")
    if len(folders) != len(spec.seeds):
        raise PipelineError(f"{job.stage}: {len(folders)} heads for {len(spec.seeds)} seeds; give --heads one per seed")
    return {
        seed: read_head(folder, {"backbone": spec.backbone, "variant": spec.variant, "seed": seed})[0]
        for seed, folder in zip(spec.seeds, folders, strict=True)
    }


def score_cache(heads: Mapping[int, TrainedHead], cache: FeatureCache, epoch: int = 0) -> dict[int, np.ndarray]:
    """Return each head's uncertainty of each image in one epoch, float32 [n]; the cache is read once, in blocks.

    Pieces are scored side by side, each by one thread: threads that share one product would wait for each other
    before every element-wise step, and their number could change the last bits.
    """
    uncertainty = {seed: np.empty(cache.rows, np.float32) for seed in heads}
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, cache.rows, _BLOCK_ROWS):
            embedding = cache.read("embedding", epoch, start, min(start + _BLOCK_ROWS, cache.rows))

            def fill(seed: int, first: int, start: int = start, embedding: np.ndarray = embedding) -> None:
                piece = embedding[first : first + _PIECE_ROWS]
                uncertainty[seed][start + first : start + first + len(piece)] = score(heads[seed].weights, piece)

            firsts = range(0, len(embedding), _PIECE_ROWS)
            # Going through the results raises what a thread raised.
            list(pool.map(fill, *zip(*itertools.product(heads, firsts), strict=True)))
    return uncertainty
