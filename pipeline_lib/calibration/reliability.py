"""How well probabilities of being wrong fit what is wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta
from sklearn.metrics import brier_score_loss, log_loss

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class CalibrationErrors:
    """How good probabilities are; smaller is better.

    log_loss: in nats. brier: mean squared difference of probability and answer.
    expected_calibration_error: mean over images of |mean probability - share wrong| of their bin.
    debiased_calibration_error: square root of the mean over images of the squared difference, less its expectation
    for perfect probabilities, share (1 - share) / (m - 1) in a bin of m images; at least 0 (Kumar, Liang, Ma, Verified
    Uncertainty Calibration, 2019, definition 4.1). Bins of one image are left out of it.
    """

    log_loss: float
    brier: float
    expected_calibration_error: float
    debiased_calibration_error: float


@dataclass(frozen=True)
class ReliabilityBins:
    """Images in bins of about equally many, by ascending probability; each array has one value per bin.

    probability: mean of the images, float64. wrong: share of wrong ones, float64. low, high: its exact 95 % interval
    (Clopper and Pearson), float64. images: int64.
    """

    probability: np.ndarray
    wrong: np.ndarray
    low: np.ndarray
    high: np.ndarray
    images: np.ndarray


def reliability_bins(probability: np.ndarray, wrong: np.ndarray, bins: int = 10) -> ReliabilityBins:
    """Put images into bins by their probability of being wrong.

    Parameters
    ----------
    probability
        float [n].
    wrong
        bool [n].
    bins
        At most so many; images of equal probability share a bin, so there are fewer where many are equal.
    """
    ordered = np.sort(probability)
    edges = np.unique(ordered[np.arange(1, bins) * len(ordered) // bins])
    _, bin_of_image, images = np.unique(
        np.searchsorted(edges, probability, side="right"), return_inverse=True, return_counts=True
    )
    errors = np.bincount(bin_of_image, weights=wrong)
    tail = (1 - _CONFIDENCE) / 2
    # At no or nothing but errors the interval ends at 0 or 1, where the distribution is none.
    low = np.where(errors == 0, 0.0, beta.ppf(tail, np.maximum(errors, 1), images - errors + 1))
    high = np.where(errors == images, 1.0, beta.ppf(1 - tail, errors + 1, np.maximum(images - errors, 1)))
    return ReliabilityBins(np.bincount(bin_of_image, weights=probability) / images, errors / images, low, high, images)


def calibration_errors(probability: np.ndarray, wrong: np.ndarray, bins: int = 10) -> CalibrationErrors:
    """Return how good the probabilities of being wrong are. probability: float [n] in (0, 1). wrong: bool [n]."""
    binned = reliability_bins(probability, wrong, bins)
    share = binned.images / len(wrong)
    difference = binned.probability - binned.wrong
    several = binned.images > 1
    noise = binned.wrong[several] * (1 - binned.wrong[several]) / (binned.images[several] - 1)
    squared = float((share[several] * (difference[several] ** 2 - noise)).sum())
    return CalibrationErrors(
        float(log_loss(wrong, probability, labels=[False, True])),
        float(brier_score_loss(wrong, probability)),
        float((share * np.abs(difference)).sum()),
        float(np.sqrt(max(0.0, squared))),
    )
