"""Loading by worker processes, any of which may die."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from pipeline_lib.core.errors import PipelineError

_ADVICE = "lower features.workers or features.batch_size; then run snakemake again"


def loaded(loader: DataLoader[Any], advice: str = _ADVICE) -> Iterator[Any]:
    """Yield what a loader loads; raises `PipelineError` when one of its worker processes dies.

    advice: what to do if it ran out of memory.
    """
    try:
        yield from loader
    except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
        if not _tells_of_a_dead_worker(error, loader):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise PipelineError(
            f"a process that decodes images died ({reason}); if it ran out of memory, {advice}"
        ) from None


def _tells_of_a_dead_worker(error: Exception, loader: DataLoader[Any]) -> bool:
    """Return whether an error is of a worker's end, and not one that a worker met and passed on.

    A worker that dies while a tensor of it is being fetched leaves a broken socket, or none.
    """
    passed_on = "in DataLoader worker process" in str(error)
    if isinstance(error, RuntimeError):
        return "DataLoader worker" in str(error) and not passed_on
    return loader.num_workers > 0 and not passed_on
