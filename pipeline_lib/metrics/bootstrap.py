"""Percentile-bootstrap intervals over images.

A resample draws n images with replacement; what matters is how often each is drawn. The counts depend on the seed
and on n alone, so all methods and seeds on one dataset see the same resamples: differences between them are paired.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline_lib.metrics.checks import require_no_nan


def resample_counts(rows: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each image is drawn, int64 [rows], for each resample."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(generator.integers(0, rows, rows), minlength=rows)


def bootstrap_recall_at_1(correct: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return Recall@1 of each resample, float64 [resamples]. correct: bool [n]; neighbours are not searched anew."""
    values = np.asarray(correct, dtype=np.float64)
    return np.array([counts @ values for counts in resample_counts(len(values), resamples, seed)]) / len(values)


def bootstrap_auroc(uncertainties: np.ndarray, is_positive: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return the AUROC of each uncertainty on each resample, float64 [m, resamples].

    uncertainties: float [m, n], one row per method or seed. is_positive: bool [n].
    Ties count half, as in `auroc`. NaN where a resample has positives only or negatives only.
    Raises `PipelineError` for NaN in an uncertainty, naming the row.

    Each uncertainty is sorted once. With p_g and q_g the counts of positives and negatives in the g-th group of
    equal values, AUROC = sum_g p_g (sum_{h < g} q_h + q_g / 2) / (sum_g p_g sum_g q_g), which takes O(n) per resample.
    """
    for uncertainty in uncertainties:
        require_no_nan(uncertainty, "uncertainty")
    orders = [_SortedGroups(uncertainty, is_positive) for uncertainty in uncertainties]
    values = np.empty((len(orders), resamples))
    for position, counts in enumerate(resample_counts(len(is_positive), resamples, seed)):
        values[:, position] = [order.auroc(counts) for order in orders]
    return values


def percentile_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the bounds of the central `confidence` share of bootstrap values, float [resamples].

    NaN values (undefined on their resample) are left out; both bounds are NaN when no other is there.
    """
    defined = values[~np.isnan(values)]
    if len(defined) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


class _SortedGroups:
    """An uncertainty in ascending order, with the borders of its groups of equal values."""

    def __init__(self, uncertainty: np.ndarray, is_positive: np.ndarray) -> None:
        order = np.argsort(uncertainty, kind="stable")
        ordered = uncertainty[order]
        is_positive = np.asarray(is_positive, dtype=bool)[order]
        group = np.cumsum(np.append(False, ordered[1:] != ordered[:-1]))
        self._positive, self._negative = order[is_positive], order[~is_positive]
        # For each positive: how many negatives, in order, lie in lower groups, and in lower groups or its own.
        negative_group = group[~is_positive]
        self._below = np.searchsorted(negative_group, group[is_positive], side="left")
        self._up_to = np.searchsorted(negative_group, group[is_positive], side="right")

    def auroc(self, counts: np.ndarray) -> float:
        positive = counts[self._positive]
        cumulative = np.concatenate([[0], np.cumsum(counts[self._negative])])
        positives, negatives = int(positive.sum()), int(cumulative[-1])
        if positives == 0 or negatives == 0:
            return float("nan")
        wins = positive @ (cumulative[self._below] + cumulative[self._up_to])
        return float(wins / (2 * positives * negatives))
