"""Several heads as one uncertainty, as a checkpoint gives it by default: the mean of their ranks among upstream images.

Checkpoints compute the same with torch (`checkpoints.model.rank`), which the evaluation does without.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUANTILES = 1001


def quantiles_of(uncertainty: np.ndarray) -> np.ndarray:
    """Return the quantiles 0, 0.001, ..., 1 of uncertainties [n], float32 [1001], interpolated linearly."""
    return np.quantile(uncertainty.astype(np.float64), np.linspace(0, 1, QUANTILES)).astype(np.float32)


def rank(uncertainty: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Return the rank of uncertainties among a population that is known by its quantiles.

    The i-th of q quantiles Q_1 <= ... <= Q_q has rank i/(q + 1); between them ranks are interpolated linearly. Outside
    they still keep their order: u > Q_q has rank 1 - (Q_q/u)/(q + 1), and u < Q_1 has rank (u/Q_1)/(q + 1).

    Parameters
    ----------
    uncertainty
        [n], positive.
    quantiles
        [q], in rising order.

    Returns
    -------
    ndarray
        float64 [n], in (0, 1).
    """
    count, tiny = len(quantiles), np.finfo(np.float64).tiny
    left = (np.searchsorted(quantiles, uncertainty, side="right") - 1).clip(0, count - 2)
    u, known = uncertainty.astype(np.float64), quantiles.astype(np.float64)
    low, high = known[left], known[left + 1]
    position = left + 1 + ((u - low) / np.maximum(high - low, tiny)).clip(0, 1)
    position = np.where(u < known[0], u / max(known[0], tiny), position)
    beyond = count + 1 - known[-1] / np.maximum(u, tiny)
    return np.where(u > known[-1], beyond, position) / (count + 1)


def rank_mean(uncertainties: Sequence[np.ndarray], upstream: Sequence[np.ndarray]) -> np.ndarray:
    """Return the uncertainty of several heads, float64 [n]; of one, its own.

    uncertainties: of each head, float [n]. upstream: those of the upstream evaluation images, float [m].
    """
    if len(uncertainties) == 1:
        return uncertainties[0].astype(np.float64)
    ranks = [rank(u, quantiles_of(known)) for u, known in zip(uncertainties, upstream, strict=True)]
    return np.mean(ranks, axis=0)
