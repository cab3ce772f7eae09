"""Every metric of an uncertainty, the same for heads and baselines."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from pipeline_lib.evaluation.metric_rows import Value
from pipeline_lib.metrics.auroc import auroc
from pipeline_lib.metrics.bootstrap import bootstrap_auroc, percentile_interval
from pipeline_lib.metrics.correlation import crop_correlation, vote_entropy_correlation
from pipeline_lib.metrics.ood import auroc_ood
from pipeline_lib.metrics.summary import crop_has_bigger_uncertainty, uncertainty_summary

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Images:
    """What is known about the images of one set, whatever the uncertainty.

    dataset: named in messages. correct: whether the nearest neighbour has the same label, bool [n].
    crop_fraction: share of the side that the centre crop keeps, float32 [n].
    classifier_correct: bool [n], upstream only. vote_entropy: float64 [n] in nats, NaN without votes; None: no votes.
    """

    dataset: str
    correct: np.ndarray
    crop_fraction: np.ndarray
    classifier_correct: np.ndarray | None
    vote_entropy: np.ndarray | None


@dataclass(frozen=True)
class Uncertainty:
    """An uncertainty of each image, of its centre crop, and of the upstream evaluation images (downstream only).

    image, crop: float [n]. upstream: float [m] or None.
    """

    image: np.ndarray
    crop: np.ndarray
    upstream: np.ndarray | None


def uncertainty_metrics(
    images: Images, uncertainties: Mapping[Key, Uncertainty], bootstrap: Mapping[str, Any]
) -> dict[Key, dict[str, Value]]:
    """Return all metrics of each uncertainty, by metric key.

    bootstrap: `resamples`, `confidence` and `seed`; all uncertainties share the resamples, and the sample of the
    mix for `auroc_ood`.
    """
    metrics = {key: _point_metrics(images, each, bootstrap["seed"]) for key, each in uncertainties.items()}
    stacked: Sequence[np.ndarray] = [each.image for each in uncertainties.values()]
    resampled = bootstrap_auroc(stacked, ~images.correct, bootstrap["resamples"], bootstrap["seed"])
    for key, values in zip(uncertainties, resampled, strict=True):
        low, high = percentile_interval(values, bootstrap["confidence"])
        metrics[key]["auroc_correct_ci_low"] = Value(low, len(images.correct))
        metrics[key]["auroc_correct_ci_high"] = Value(high, len(images.correct))
    return metrics


def _point_metrics(images: Images, uncertainty: Uncertainty, seed: int) -> dict[str, Value]:
    image, crop, dataset = uncertainty.image, uncertainty.crop, images.dataset
    n = len(image)
    metrics = {"auroc_correct": Value(auroc(image, ~images.correct, dataset), n)}
    if images.classifier_correct is not None:
        metrics["auroc_classification"] = Value(auroc(image, ~images.classifier_correct, dataset), n)
    if images.vote_entropy is not None:
        voted = int(np.count_nonzero(~np.isnan(images.vote_entropy)))
        metrics["rcorr_entropy"] = Value(vote_entropy_correlation(image, images.vote_entropy, dataset), voted)
    metrics["croppedHasBiggerUnc"] = Value(crop_has_bigger_uncertainty(image, crop), n)
    metrics["rcorr_crop_unc"] = Value(crop_correlation(crop, images.crop_fraction, dataset), n)
    if uncertainty.upstream is not None:
        mixed = 2 * min(n, len(uncertainty.upstream))
        metrics["auroc_ood"] = Value(auroc_ood(uncertainty.upstream, image, seed, dataset), mixed)
    return metrics | {key: Value(value, n) for key, value in uncertainty_summary(image, dataset).items()}
