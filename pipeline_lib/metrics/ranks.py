"""Exact average ranks, and their correlation."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from pipeline_lib.metrics.checks import require_no_nan


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Return each value's rank, float64 [n], from 1 for the smallest; equal values share the mean of their ranks.

    values: float [n] without NaN. Ranks are multiples of one half, so sums of them are exact.
    """
    return pd.Series(values).rank(method="average").to_numpy(np.float64)


def rank_shares(values: np.ndarray) -> np.ndarray:
    """Return the share of all values that come before each, float64 [n]: (rank - 1/2) / n, between 0 and 1."""
    return (average_ranks(values) - 0.5) / len(values)


def spearman(first: np.ndarray, second: np.ndarray, dataset: str) -> float:
    """Return Spearman's rank correlation: Pearson's correlation of the ranks, with average ranks for ties.

    Parameters
    ----------
    first, second
        float [n].
    dataset
        Named in messages.

    Returns
    -------
    float
        NaN, with a warning, when either is constant.

    Raises
    ------
    PipelineError
        For NaN, naming the row.
    """
    require_no_nan(first, f"uncertainty on {dataset}")
    require_no_nan(second, f"reference on {dataset}")
    ranks = [average_ranks(values) for values in (first, second)]
    # Ranks are multiples of one half around a mean that is one too: these sums are exact.
    deviations = [values - (len(values) + 1) / 2 for values in ranks]
    spread = [float(values @ values) for values in deviations]
    if len(first) < 2 or min(spread) == 0:
        warnings.warn(
            f"{dataset}: {len(first)} images with constant values, so the correlation is undefined", stacklevel=2
        )
        return float("nan")
    return float(deviations[0] @ deviations[1] / np.sqrt(spread[0] * spread[1]))
