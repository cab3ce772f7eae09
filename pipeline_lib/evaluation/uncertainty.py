"""Every metric of an uncertainty, the same for heads and baselines."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipeline_lib.evaluation.metric_rows import Value
from pipeline_lib.evaluation.mixed import Mix
from pipeline_lib.evaluation.spec import MetricOptions
from pipeline_lib.metrics.auroc import auroc
from pipeline_lib.metrics.bootstrap import bootstrap_auroc, percentile_interval
from pipeline_lib.metrics.correlation import auroc_not_dirac, crop_correlation, vote_entropy_correlation
from pipeline_lib.metrics.ood import auroc_ood
from pipeline_lib.metrics.reference import auroc_reference
from pipeline_lib.metrics.selective import aurc, coverage_at_accuracy, excess_aurc
from pipeline_lib.metrics.summary import crop_has_bigger_uncertainty, uncertainty_summary

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Images:
    """What is known about the images of one set, whatever the uncertainty.

    dataset: named in messages. correct: whether the nearest neighbour has the same label, bool [n];
    reference_correct: the same by the reference code's search, bool [n].
    crop_fraction: share of the side that the centre crop keeps, float32 [n].
    classifier_correct: bool [n], upstream only. vote_entropy: float64 [n] in nats, NaN without votes; None: no votes.
    mix: of these with upstream images; None: no metrics on a mix.
    """

    dataset: str
    correct: np.ndarray
    reference_correct: np.ndarray
    crop_fraction: np.ndarray
    classifier_correct: np.ndarray | None
    vote_entropy: np.ndarray | None
    mix: Mix | None


@dataclass(frozen=True)
class Uncertainty:
    """An uncertainty of each image, of its centre crop, and of the upstream evaluation images (downstream only).

    image: float [n]. crop: float [n]; None where crops have none. upstream: float [m] or None.
    in_reference: the same as the reference code has it, where it takes another function of equal order, float [n].
    """

    image: np.ndarray
    crop: np.ndarray | None
    upstream: np.ndarray | None
    in_reference: np.ndarray | None = None


@dataclass(frozen=True)
class Rival:
    """An uncertainty that others are compared with: of each image, float [n], and its R-AUROC on each resample."""

    image: np.ndarray
    resampled: np.ndarray


def resampled_aurocs(images: Images, uncertainties: Sequence[np.ndarray], options: MetricOptions) -> np.ndarray:
    """Return the R-AUROC of each uncertainty of the images, float [n], on each resample, float64 [m, resamples].

    The resamples depend on the seed and the number of images alone, so that differences are paired, also those
    between uncertainties of different calls.
    """
    bootstrap = options.bootstrap
    return bootstrap_auroc(uncertainties, ~images.correct, bootstrap.resamples, bootstrap.seed)


def uncertainty_metrics(
    images: Images,
    uncertainties: Mapping[Key, Uncertainty],
    rivals: Mapping[str, Rival],
    resampled: np.ndarray,
    options: MetricOptions,
) -> dict[Key, dict[str, Value]]:
    """Return all metrics of each uncertainty, by metric key.

    rivals: what each of these is compared with, by name.
    resampled: from `resampled_aurocs`, in the order of `uncertainties`.
    options: with compat "reference" the point value of `auroc_correct` is the reference code's. Intervals and
    differences are always exact.

    All uncertainties share the sample for `auroc_ood`.
    """
    metrics = {key: _point_metrics(images, each, options) for key, each in uncertainties.items()}
    wrong, confidence = ~images.correct, options.bootstrap.confidence
    of_rivals = {name: auroc(rival.image, wrong, images.dataset) for name, rival in rivals.items()}
    for (key, uncertainty), on_resamples in zip(uncertainties.items(), resampled, strict=True):
        exact = auroc(uncertainty.image, wrong, images.dataset)
        reference = metrics[key]["reference_auroc_correct"].value
        of_images = {"auroc_correct": reference if options.compat == "reference" else exact}
        of_images |= _interval("auroc_correct", on_resamples, confidence)
        for name, rival in rivals.items():
            metric = f"auroc_correct_minus_{name}"
            of_images[metric] = exact - of_rivals[name]
            of_images |= _interval(metric, on_resamples - rival.resampled, confidence)
        metrics[key] |= {metric: Value(value, len(wrong)) for metric, value in of_images.items()}
    return metrics


def _interval(metric: str, resampled: np.ndarray, confidence: float) -> dict[str, float]:
    low, high = percentile_interval(resampled, confidence)
    return {f"{metric}_ci_low": low, f"{metric}_ci_high": high}


def _point_metrics(images: Images, uncertainty: Uncertainty, options: MetricOptions) -> dict[str, Value]:
    """Return every metric but those that the bootstrap is about."""
    image, upstream, dataset, n = uncertainty.image, uncertainty.upstream, images.dataset, len(images.correct)
    in_reference = image if uncertainty.in_reference is None else uncertainty.in_reference
    metrics = {
        "reference_auroc_correct": Value(auroc_reference(in_reference, ~images.reference_correct, dataset), n),
        **_selective_metrics(images, image, options.target_accuracies),
    }
    if images.classifier_correct is not None:
        metrics["auroc_classification"] = Value(auroc(image, ~images.classifier_correct, dataset), n)
    if images.vote_entropy is not None:
        voted = int(np.count_nonzero(~np.isnan(images.vote_entropy)))
        metrics["rcorr_entropy"] = Value(vote_entropy_correlation(image, images.vote_entropy, dataset), voted)
        metrics["auroc_not_dirac"] = Value(auroc_not_dirac(image, images.vote_entropy, dataset), voted)
    if uncertainty.crop is not None:
        metrics["croppedHasBiggerUnc"] = Value(crop_has_bigger_uncertainty(image, uncertainty.crop), n)
        metrics["rcorr_crop_unc"] = Value(crop_correlation(uncertainty.crop, images.crop_fraction, dataset), n)
    if upstream is not None:
        seed = options.bootstrap.seed
        metrics["auroc_ood"] = Value(auroc_ood(upstream, image, seed, dataset), 2 * min(n, len(upstream)))
    if upstream is not None and images.mix is not None:
        mixed, right = images.mix.uncertainty(upstream, image), images.mix.correct
        metrics["auroc_correct_mixed"] = Value(auroc(mixed, ~right, f"{dataset} mixed with upstream"), len(right))
    return metrics | {key: Value(value, n) for key, value in uncertainty_summary(image, dataset).items()}


def _selective_metrics(images: Images, image: np.ndarray, target_accuracies: Sequence[float]) -> dict[str, Value]:
    wrong, dataset = ~images.correct, images.dataset
    metrics = {"aurc": aurc(image, wrong, dataset), "e_aurc": excess_aurc(image, wrong, dataset)}
    for accuracy in target_accuracies:
        metrics[f"coverage_at_r1_{accuracy:g}"] = coverage_at_accuracy(image, wrong, accuracy)
    return {metric: Value(value, len(wrong)) for metric, value in metrics.items()}
