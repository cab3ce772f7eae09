"""Exact average ranks."""

from __future__ import annotations

import numpy as np
import pandas as pd


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Return each value's rank, float64 [n], from 1 for the smallest; equal values share the mean of their ranks.

    values: float [n] without NaN. Ranks are multiples of one half, so sums of them are exact.
    """
    return pd.Series(values).rank(method="average").to_numpy(np.float64)
