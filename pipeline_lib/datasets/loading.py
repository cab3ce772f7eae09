"""Loading by worker processes, any of which may die."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from pipeline_lib.core.errors import PipelineError

_ADVICE = "lower features.workers or features.batch_size; then run snakemake again"


def loaded(loader: DataLoader[Any], advice: str = _ADVICE) -> Iterator[Any]:
    """Yield what a loader loads.

    Parameters
    ----------
    loader : DataLoader
        Loads in this process or in workers.
    advice : str
        What to do if a worker ran out of memory.

    Raises
    ------
    PipelineError
        A worker process died.
    """
    try:
        yield from loader
    except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
        if not _worker_died(error, loader):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise PipelineError(
            f"a process that decodes images died ({reason}); if it ran out of memory, {advice}"
        ) from None


def _worker_died(error: Exception, loader: DataLoader[Any]) -> bool:
    """Return whether an error means that a worker died, and is not one that a worker met and passed on.

    A worker that dies while one of its tensors is being fetched leaves a broken socket, or none.
    """
    passed_on = "in DataLoader worker process" in str(error)
    if isinstance(error, RuntimeError):
        return "DataLoader worker" in str(error) and not passed_on
    return loader.num_workers > 0 and not passed_on
