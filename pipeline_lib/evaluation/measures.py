"""All metrics of one uncertainty on one evaluation set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline_lib.metrics.auroc import auroc
from pipeline_lib.metrics.bootstrap import percentile_interval
from pipeline_lib.metrics.correlation import crop_correlation, vote_entropy_correlation
from pipeline_lib.metrics.ood import auroc_ood
from pipeline_lib.metrics.summary import crop_has_bigger_uncertainty, uncertainty_summary

Values = dict[str, tuple[float, int]]  # {metric: (value, number of images)}


@dataclass(frozen=True)
class Evidence:
    """What is known about the images of an evaluation set, apart from any uncertainty.

    name: the set, for messages. correct: bool [n], the nearest neighbour has the label. crop_fraction: float [n].
    classifier_correct: bool [n] upstream, else None. vote_entropy: float [n], NaN without votes, or None.
    """

    name: str
    correct: np.ndarray
    crop_fraction: np.ndarray
    classifier_correct: np.ndarray | None = None
    vote_entropy: np.ndarray | None = None


@dataclass(frozen=True)
class Uncertainty:
    """One uncertainty u(x) of the same images: float [n], of their crops, and of the upstream evaluation set [m]."""

    images: np.ndarray
    crops: np.ndarray
    upstream: np.ndarray | None = None


def metrics_of(uncertainty: Uncertainty, evidence: Evidence, seed: int) -> Values:
    """Return every metric that can be computed; keys as in the reference code. seed: of the mix with upstream images."""
    images, crops, name = uncertainty.images, uncertainty.crops, evidence.name
    n = len(images)
    found: Values = {
        "auroc_correct": (auroc(images, ~evidence.correct, name), n),
        "croppedHasBiggerUnc": (crop_has_bigger_uncertainty(images, crops), n),
        "rcorr_crop_unc": (crop_correlation(crops, evidence.crop_fraction, name), n),
    }
    if evidence.classifier_correct is not None:
        found["auroc_classification"] = (auroc(images, ~evidence.classifier_correct, name), n)
    if evidence.vote_entropy is not None:
        voted = int(np.count_nonzero(~np.isnan(evidence.vote_entropy)))
        found["rcorr_entropy"] = (vote_entropy_correlation(images, evidence.vote_entropy, name), voted)
    if uncertainty.upstream is not None:
        mixed = 2 * min(n, len(uncertainty.upstream))
        found["auroc_ood"] = (auroc_ood(uncertainty.upstream, images, seed, name), mixed)
    return found | {key: (value, n) for key, value in uncertainty_summary(images, name).items()}


def interval_of(metric: str, resampled: np.ndarray, confidence: float, n: int) -> Values:
    """Return the ends of a percentile interval as `<metric>_ci_low` and `<metric>_ci_high`."""
    low, high = percentile_interval(resampled, confidence)
    return {f"{metric}_ci_low": (low, n), f"{metric}_ci_high": (high, n)}
