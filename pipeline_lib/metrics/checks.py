"""Checks that every metric makes of its input."""

from __future__ import annotations

import numpy as np

from pipeline_lib.core.errors import PipelineError


def require_no_nan(values: np.ndarray, what: str) -> None:
    """Raise `PipelineError` naming the first row of `values`, float [n], that is NaN."""
    is_nan = np.isnan(values)
    if is_nan.any():
        raise PipelineError(
            f"{what} is NaN in row {int(np.flatnonzero(is_nan)[0])} ({int(is_nan.sum())} of {len(values)} rows); "
            "check the head and the cache that it was computed from"
        )
