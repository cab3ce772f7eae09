"""The cache of a view as dask arrays, in Zarr or HDF5: for work on more rows than fit into memory.

A chunk of such an array is a chunk of the storage: some rows of one epoch of one block. It is read where it is
computed, by its path, so any scheduler will do: threads, processes, or workers of a cluster that see the same files.
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
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.system import CPU_COUNT
from threadpoolctl import threadpool_limits

from pipeline_lib.config.dask import SCHEDULER_PATTERN
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.features.blocks import block_ranges
from pipeline_lib.features.cache import IMAGE_ARRAYS, FeatureCache, read_block
from pipeline_lib.features.store import BlockArrays

ADDRESS_VARIABLE = "DASK_SCHEDULER_ADDRESS"
_ANSWER_SECONDS = 10


@dataclass(frozen=True)
class Chunk:
    """Rows [start, stop) of a block, in the epoch at `position` of those that the block holds."""

    view_dir: str
    block: str
    digest: str
    position: int
    start: int
    stop: int


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
            yield from dask.compute(*tasks[start : start + at_once])


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
    """Return the chunks of one epoch, in the order of its rows."""
    view_dir, chunk_rows = str(cache.view_dir.resolve()), cache.manifest.spec["block"]["chunk_rows"]
    return [
        Chunk(view_dir, block["name"], block["digest"], epoch - block["epochs"][0], start, stop)
        for block in cache.manifest.facts["blocks"]
        if epoch in range(*block["epochs"])
        for start, stop in block_ranges(block["rows"], chunk_rows)
    ]


def feature_array(cache: FeatureCache, array: str, epoch: int) -> da.Array:
    """Return one array of one epoch: [rows, dim] for "embedding", else [rows]; a chunk of storage is a chunk of it.

    Each block is verified against its checksums when a process first touches it; a damaged one raises
    `ArtefactError` when the array is computed. Raises `PipelineError` when the cache has no such array or epoch.
    """
    dtype = cache.read(array, epoch, 0, min(1, cache.rows)).dtype
    width = (cache.dim,) if array == "embedding" else ()
    pieces = [
        da.from_delayed(dask.delayed(read_chunk)(chunk, array, width), (chunk.stop - chunk.start, *width), dtype)
        for chunk in chunks(cache, epoch)
    ]
    return da.concatenate(pieces) if pieces else da.empty((0, *width), dtype=dtype)


def read_chunk(chunk: Chunk, array: str, width: tuple[int, ...] = ()) -> np.ndarray:
    """Read the rows of a chunk: [rows, *width]; width: (dim,) for "embedding"."""
    _verify_once(chunk.view_dir, chunk.block, chunk.digest)
    source = BlockArrays(Path(chunk.view_dir) / "blocks" / chunk.block)
    rows = slice(chunk.start, chunk.stop)
    out = np.empty((chunk.stop - chunk.start, *width), source.dtype(array))
    source.read_into(array, (rows,) if array in IMAGE_ARRAYS else (chunk.position, rows), out)
    return out


@functools.cache
def _verify_once(view_dir: str, block: str, digest: str) -> None:
    read_block(Path(view_dir), block, digest)
