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


def checked_bools(wrong: np.ndarray) -> np.ndarray:
    """Return bool [n]; raises `PipelineError` for numbers that aren't 0 or 1: NaN would count as true."""
    values = np.asarray(wrong)
    if values.dtype == bool:
        return values
    if values.dtype.kind not in "iuf" or not (is_bool := np.isin(values, (0, 1))).all():
        row = 0 if values.dtype.kind not in "iuf" else int(np.argmin(is_bool))
        raise PipelineError(f"wrong is {values.ravel()[row]!r} in row {row}, but must be true or false (1 or 0)")
    return values.astype(bool)
