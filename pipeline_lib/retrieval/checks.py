"""Checks of what is put into a safe index and asked of it."""

from __future__ import annotations

import numpy as np

from pipeline_lib.core.errors import PipelineError


def checked_share(name: str, share: float) -> float:
    """Return a share in [0, 1)."""
    if not 0 <= share < 1:
        raise PipelineError(f"{name} is {share}, but must be at least 0 and less than 1")
    return float(share)


def checked_integers(what: str, values: np.ndarray, rows: int | None = None) -> np.ndarray:
    """Return whole numbers, int64 [n]; rows: how many they must be, None = any number."""
    values = np.asarray(values)
    if values.ndim != 1 or (len(values) and values.dtype.kind not in "iu") or rows not in (None, len(values)):
        raise PipelineError(
            f"{what} have type {values.dtype} and shape {values.shape}, but must be whole numbers, one per item"
        )
    return values.astype(np.int64)


def checked_floats(what: str, values: np.ndarray, dtype: type, rows: int | None, dim: int | None = None) -> np.ndarray:
    """Return finite values, [n] or [n, dim]; rows: how many they must be, None = any number."""
    values = np.asarray(values, dtype)
    width = () if dim is None else (dim,)
    if values.ndim != 1 + len(width) or values.shape[1:] != width or rows not in (None, len(values)):
        wanted = ", ".join(map(str, ("n" if rows is None else rows, *width)))
        raise PipelineError(f"the {what} have shape {values.shape}, but must be [{wanted}]")
    is_finite = np.isfinite(values) if dim is None else np.isfinite(values).all(axis=1)
    if not is_finite.all():
        raise PipelineError(f"row {int(np.argmin(is_finite))} of the {what} holds NaN or infinity; check their source")
    return values
