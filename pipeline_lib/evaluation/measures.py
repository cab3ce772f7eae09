"""Every metric of a representation and of its uncertainties, from plain arrays, whoever they come from.

What may be needed to compute a metric, by the names that the metrics use:

- of the images: `images`, how many; `correct` and `wrong`, bool [n], whether the nearest neighbour has the same label;
  `reference_correct` and `reference_wrong`, the same by the reference code's search; `label_rank` and
  `classifier_wrong`, how many classes the classifier scores above the true one, and whether there are any;
  `vote_entropy`; `crop_fraction`; `label`, int [n]; `lone_class_images`; `dataset`, which messages name;
- of an uncertainty: `uncertainty`, float [n]; `reference_uncertainty`, as the reference code has it;
  `crop_uncertainty`, of the centre crops; `upstream_uncertainty`, of the upstream evaluation images;
  `mixed_uncertainty` and `mixed_wrong`, of a mix of both sets; `resampled`, its R-AUROC on each bootstrap resample;
  `rivals`, what it is compared with, by name;
- of the options: `bootstrap`, with the `resampling` of these images that it asks for, and `target_accuracies`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from pipeline_lib.evaluation.mixed import MixedRows
from pipeline_lib.evaluation.spec import MetricOptions
from pipeline_lib.metrics.bootstrap import Resampling, bootstrap_auroc
from pipeline_lib.metrics.found import Family, found_metrics
from pipeline_lib.metrics.metric import Value
from pipeline_lib.metrics.r_auroc import Rival

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Images:
    """What is known about the images of one set, whatever the uncertainty; None: not known, or there is none.

    dataset: named in messages. correct: whether the nearest neighbour has the same label, bool [n], known wherever
    resamples are drawn;
    reference_correct: the same by the reference code's search, bool [n].
    label: of the class, int [n] from 0; decides whether intervals resample classes.
    crop_fraction: share of the side that the centre crop keeps, float32 [n].
    classifier_correct: bool [n]; label_rank: how many classes the classifier scores above the true one, int [n].
    vote_entropy: float64 [n] in nats, NaN for images without votes.
    lone_class_images: how many images are the only one of their class.
    mix: of these with upstream images.
    """

    dataset: str
    correct: np.ndarray | None
    reference_correct: np.ndarray | None = None
    label: np.ndarray | None = None
    crop_fraction: np.ndarray | None = None
    classifier_correct: np.ndarray | None = None
    label_rank: np.ndarray | None = None
    vote_entropy: np.ndarray | None = None
    lone_class_images: int | None = None
    mix: MixedRows | None = None

    @property
    def images(self) -> int:
        """Their number."""
        return next(len(known) for known in (self.correct, self.vote_entropy) if known is not None)


@dataclass(frozen=True)
class Uncertainty:
    """An uncertainty of each image, of its centre crop, and of the upstream evaluation images.

    image: float [n]. crop: float [n]; None where crops have none. upstream: float [m]; None for the upstream set.
    in_reference: the same as the reference code has it, where it takes another function of equal order, float [n].
    """

    image: np.ndarray
    crop: np.ndarray | None = None
    upstream: np.ndarray | None = None
    in_reference: np.ndarray | None = None


def resampled_aurocs(images: Images, uncertainties: Sequence[np.ndarray], options: MetricOptions) -> np.ndarray:
    """Return the R-AUROC of each uncertainty of the images, float [n], on each resample, float64 [m, resamples].

    The resamples depend on the seed and the images alone, so that differences are paired, also those between
    uncertainties of different calls.
    """
    assert images.correct is not None
    return bootstrap_auroc(uncertainties, ~images.correct, _resampling(images, options))


def measure_representation(images: Images, options: MetricOptions) -> dict[str, Value]:
    """Return every metric of the representation that can be computed, by name."""
    return _measured("metrics.representation", _known_of_images(images, options), options)


def measure_uncertainties(
    images: Images,
    uncertainties: Mapping[Key, Uncertainty],
    resampled: np.ndarray | None,
    rivals: Mapping[str, Rival],
    options: MetricOptions,
) -> dict[Key, dict[str, Value]]:
    """Return every metric of each uncertainty that can be computed, by name.

    Parameters
    ----------
    images, options
        What metrics depend on besides the uncertainty.
    uncertainties
        By any key.
    resampled
        From `resampled_aurocs`, in the order of `uncertainties`; None where it isn't known who is right.
    rivals
        What each uncertainty is compared with, by name.
    """
    known = _known_of_images(images, options) | {"rivals": rivals}
    measured = {}
    for position, (key, uncertainty) in enumerate(uncertainties.items()):
        of_bootstrap = {} if resampled is None else {"resampled": resampled[position]}
        measured[key] = _measured("metrics", known | _known_of(uncertainty, images) | of_bootstrap, options)
    return measured


def _measured(family: Family, known: Mapping[str, Any], options: MetricOptions) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for metric in found_metrics(family):
        values |= metric.values(known, known["images"])
    if options.compat == "reference":
        values |= {name: values[f"reference_{name}"] for name in values if f"reference_{name}" in values}
    return values


def _known_of_images(images: Images, options: MetricOptions) -> dict[str, Any]:
    known = {name: value for name, value in vars(images).items() if value is not None}
    for name in ("", "reference_", "classifier_"):
        if f"{name}correct" in known:
            known[f"{name}wrong"] = ~known[f"{name}correct"]
    known |= {"images": images.images, "bootstrap": options.bootstrap}
    if images.correct is not None:
        known["resampling"] = _resampling(images, options)
    return known | {"target_accuracies": options.target_accuracies}


def _resampling(images: Images, options: MetricOptions) -> Resampling:
    return Resampling.of(options.bootstrap, images.images, images.label)


def _known_of(uncertainty: Uncertainty, images: Images) -> dict[str, Any]:
    known = {
        "uncertainty": uncertainty.image,
        "reference_uncertainty": uncertainty.image if uncertainty.in_reference is None else uncertainty.in_reference,
        "crop_uncertainty": uncertainty.crop,
        "upstream_uncertainty": uncertainty.upstream,
    }
    if uncertainty.upstream is not None and images.mix is not None:
        known["mixed_uncertainty"] = images.mix.uncertainty(uncertainty.upstream, uncertainty.image)
        known["mixed_wrong"] = ~images.mix.correct
    return {name: value for name, value in known.items() if value is not None}
