"""Loading by worker processes, any of which may die."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from pipeline_lib.errors import PipelineError

_ADVICE = "lower features.workers or features.batch_size; then run snakemake again"


def loaded(loader: DataLoader[Any], advice: str = _ADVICE) -> Iterator[Any]:
    """Yield what a loader loads; raises `PipelineError` when one of its worker processes dies.

    advice: what to do if it ran out of memory.
    """
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise PipelineError(
            f"a process that decodes images died ({str(error).splitlines()[0]}); if it ran out of memory, {advice}"
        ) from None
