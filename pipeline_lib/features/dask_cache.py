"""The cache of a view as dask arrays, in Zarr or HDF5: for work on more rows than fit into memory.

Rows are read where they are computed, by the path of the view, so any scheduler will do: threads, processes, or
workers of a cluster that see the same files. They are cut as `CHUNK_ROWS` says, whatever blocks and chunks they are
stored in: what is computed piece by piece is the same to the last bit, however the cache was made.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.config
import numpy as np
from dask.base import compute
from dask.delayed import delayed
from dask.system import CPU_COUNT
from threadpoolctl import threadpool_limits

from pipeline_lib.config.dask import SCHEDULER_PATTERN
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.features.blocks import block_ranges
from pipeline_lib.features.cache import FeatureCache

if TYPE_CHECKING:
    import dask.array as da

ADDRESS_VARIABLE = "DASK_SCHEDULER_ADDRESS"
CHUNK_ROWS = 16_384
_ANSWER_SECONDS = 10


@dataclass(frozen=True)
class Chunk:
    """Rows [start, stop) of one epoch of the view in a folder, whose record has this digest."""

    view_dir: str
    digest: str
    epoch: int
    start: int
    stop: int

    def read(self, array: str) -> np.ndarray:
        """Read one array; raises `ArtefactError` for a damaged block, which is verified when it is first touched."""
        return _opened(self.view_dir, self.digest).read(array, self.epoch, self.start, self.stop)


@dataclass(frozen=True)
class Scheduler:
    """Where dask computes, and on how many workers."""

    name: str
    workers: int

    def in_order(self, tasks: Sequence[Any]) -> Iterator[Any]:
        """Compute delayed tasks and yield their results in order, with no more underway than keep all workers busy.

        Left to itself, dask may read chunks far ahead of those that are done with: memory would grow with the cache.
        """
        at_once = 2 * self.workers
        for start in range(0, len(tasks), at_once):
            yield from compute(*tasks[start : start + at_once])


@contextlib.contextmanager
def computing(scheduler: str | None) -> Iterator[Scheduler]:
    """Compute dask collections inside the block on a scheduler.

    scheduler: "threads", "processes", the address of a `dask.distributed` scheduler, or None for the one that the
    environment variable DASK_SCHEDULER_ADDRESS names, else threads. DASK_NUM_WORKERS says how many threads or
    processes there are, by default as many as cores. Tasks compute matrix products in one thread each; the workers of
    a cluster, which `dask worker` starts so anyway, stay with that.
    Raises `PipelineError` for anything else, when `distributed` is not installed, or when nobody answers.
    """
    name = scheduler or os.environ.get(ADDRESS_VARIABLE) or "threads"
    if not re.match(SCHEDULER_PATTERN, name):
        raise PipelineError(
            f"dask scheduler '{name}' is unknown; allowed: threads, processes, or an address such as tcp://host:8786"
        )
    workers = dask.config.get("num_workers", None) or CPU_COUNT
    with contextlib.ExitStack() as stack:
        # The scheduler keeps the cores busy already. Matrix products in one thread each, everywhere: equal bytes. The
        # limit is one of a process, so it is set around all tasks: set within each, tasks side by side would undo it.
        if name == "threads":
            stack.enter_context(threadpool_limits(1))
            stack.enter_context(dask.config.set(scheduler=name))
        elif name == "processes":
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(workers, context, initializer=_limit_worker))
            stack.enter_context(dask.config.set(scheduler=name, pool=pool))
        else:
            client = stack.enter_context(_client(name))
            client.register_worker_callbacks(_limit_worker)
            workers = max(1, sum(client.ncores().values()))
        yield Scheduler(name, workers)


def _limit_worker() -> None:
    """Compute matrix products in one thread each from now on; numpy, which this module imports, has loaded BLAS."""
    threadpool_limits(1)


def _client(address: str) -> Any:
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise PipelineError(
            f"dask scheduler '{address}' needs dask.distributed; install it with: pip install '.[distributed]'"
        ) from None
    try:
        return Client(address, timeout=_ANSWER_SECONDS)
    except OSError as error:
        raise PipelineError(
            f"no dask scheduler answers at {address} ({' '.join(str(error).split())}); start one with `dask scheduler`,"
            " or choose threads (--scheduler, or dask.scheduler in the config)"
        ) from None


def chunks(cache: FeatureCache, epoch: int) -> list[Chunk]:
    """Return the rows of one epoch, in order and cut into chunks."""
    view_dir, digest = str(cache.view_dir.resolve()), cache.manifest.digest
    return [Chunk(view_dir, digest, epoch, start, stop) for start, stop in block_ranges(cache.rows, CHUNK_ROWS)]


def feature_array(cache: FeatureCache, array: str, epoch: int) -> da.Array:
    """Return one array of one epoch: [rows, dim] for "embedding", else [rows].

    Raises `PipelineError` when the cache has no such array or epoch; computing it raises `ArtefactError` for a damaged
    block.
    """
    import dask.array as da  # takes longer than all else here, which workers import too

    dtype = cache.read(array, epoch, 0, min(1, cache.rows)).dtype
    width = (cache.dim,) if array == "embedding" else ()
    pieces = [
        da.from_delayed(delayed(Chunk.read)(chunk, array), (chunk.stop - chunk.start, *width), dtype)
        for chunk in chunks(cache, epoch)
    ]
    return da.concatenate(pieces) if pieces else da.empty((0, *width), dtype=dtype)


@functools.lru_cache(maxsize=8)
def _opened(view_dir: str, digest: str) -> FeatureCache:
    """Open a cache once per process, and anew when another record has taken its place."""
    return FeatureCache(Path(view_dir))
