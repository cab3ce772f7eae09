"""Loading by worker processes, any of which may die."""

from __future__ import annotations

import errno
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline_lib.core.errors import PipelineError

_ADVICE = "lower features.workers or features.batch_size; then run snakemake again"


def loaded(loader: DataLoader[Any], advice: str = _ADVICE) -> Iterator[Any]:
    """Yield what a loader loads.

    What workers load comes through pipes. torch would pass its tensors through /dev/shm, and a worker that finds it
    full (64 MB in a container) loses the item without a word: the loader then waits for ever.

    Parameters
    ----------
    loader : DataLoader
        Loads in this process or in workers.
    advice : str
        What to do if a worker ran out of memory.

    Raises
    ------
    PipelineError
        A worker process died, or none can be started since /dev/shm is full.
    """
    if loader.num_workers > 0:
        loader.collate_fn = _Packed(loader.collate_fn)
    try:
        yield from map(pickle.loads, loader) if loader.num_workers > 0 else loader
    except (RuntimeError, OSError, EOFError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise PipelineError(
                "no process that decodes images can be started: /dev/shm is full (docker run --shm-size 1g gives a "
                "container more); or decode without such processes (workers: 0)"
            ) from None
        if not _worker_died(error, loader):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise PipelineError(
            f"a process that decodes images died ({reason}); if it ran out of memory, {advice}"
        ) from None


class _Packed:
    """Collates, and turns the result into bytes."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate

    def __call__(self, items: Any) -> bytes:
        stream = io.BytesIO()
        _Pickler(stream, pickle.HIGHEST_PROTOCOL).dump(self._collate(items))
        return stream.getvalue()


class _Pickler(pickle.Pickler):
    """Pickles tensors as arrays, which is as fast as copying them."""

    def reducer_override(self, value: Any) -> Any:
        return (torch.from_numpy, (value.numpy(),)) if isinstance(value, Tensor) else NotImplemented


def _worker_died(error: Exception, loader: DataLoader[Any]) -> bool:
    """Return whether an error means that a worker died, and is not one that a worker met and passed on.

    A worker that dies while something of it is being fetched leaves a broken pipe, or none.
    """
    passed_on = "in DataLoader worker process" in str(error)
    if isinstance(error, RuntimeError):
        return "DataLoader worker" in str(error) and not passed_on
    return loader.num_workers > 0 and not passed_on
