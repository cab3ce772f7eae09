"""All that is measured about the uncertainties of one embedding model, by what evaluates a set of the pipeline.

What can be computed from the arrays is decided by the metrics: one more metric is one more number here.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.arrays.inputs import Inputs
from pipeline_lib.arrays.worst import Query, find_worst
from pipeline_lib.config.evaluation import Evaluation
from pipeline_lib.evaluation.measures import (
    Images,
    Uncertainty,
    measure_representation,
    measure_uncertainties,
    resampled_aurocs,
)
from pipeline_lib.evaluation.metric_rows import metric_rows
from pipeline_lib.evaluation.spec import EvaluationSpec, MetricOptions
from pipeline_lib.metrics.auroc import auroc
from pipeline_lib.metrics.distribution import METRICS as DISTRIBUTION
from pipeline_lib.metrics.metric import Value
from pipeline_lib.metrics.r_auroc import Rival
from pipeline_lib.metrics.selective import risk_coverage_curve
from pipeline_lib.metrics.within_classes import class_table

OPTIONS = MetricOptions(**MetricOptions.values(Evaluation()))
REJECTED = tuple(percent / 100 for percent in range(0, 51, 5))
DIFFERENCE = "auroc_correct_minus_"
_FEW = 30


@dataclass(frozen=True)
class Report:
    """What was measured; a value that is undefined (an AUROC of right images only) is NaN.

    name: the model's. images: how many. representation, uncertainties: values by metric, the latter of each
    uncertainty. rejection: of each uncertainty, the 1-NN error at each share in `REJECTED`.
    facts: counts about the representation and the labels. notes: what a reader should know about these numbers.
    classes: of each uncertainty, the table of `class_table`; none without labels. worst: queries to look at.
    Where it isn't known whose neighbour is right, `representation`, `rejection`, `classes` and `worst` are empty.
    """

    name: str
    images: int
    representation: Mapping[str, Value]
    uncertainties: Mapping[str, Mapping[str, Value]]
    rejection: Mapping[str, list[float]]
    facts: Mapping[str, int]
    notes: list[str]
    classes: Mapping[str, pd.DataFrame]
    worst: Mapping[str, list[Query]]

    def value(self, uncertainty: str, metric: str) -> float:
        """Return one value of an uncertainty."""
        return self.uncertainties[uncertainty][metric].value

    @property
    def is_known(self) -> bool:
        """Whether it is known whose neighbour is right."""
        return bool(self.representation)

    @property
    def resampled(self) -> str:
        """What the intervals resample, in words."""
        classes = int(self.representation["resampled_classes"].value)
        return f"whole classes ({classes:,})" if classes else "images"

    @property
    def voted_images(self) -> int:
        """The number of images that have votes; 0 without votes."""
        first = next(iter(self.uncertainties.values()))
        return first["rcorr_entropy"].n if "rcorr_entropy" in first else 0

    def differences(self) -> list[dict[str, Any]]:
        """Return `first`, `second`, `difference`, `ci_low` and `ci_high` of each pair of uncertainties.

        The difference is the R-AUROC of `first` minus that of `second`, its interval from the same resamples.
        """
        return [
            {"first": first, "second": second}
            | {"difference": self.value(first, f"{DIFFERENCE}{second}")}
            | {f"ci_{end}": self.value(first, f"{DIFFERENCE}{second}_ci_{end}") for end in ("low", "high")}
            for first, second in itertools.combinations(self.rejection, 2)
        ]

    def nested(self) -> dict[str, Any]:
        """Return everything as values that JSON knows; None stands for NaN."""
        uncertainties = {}
        for name, values in self.uncertainties.items():
            plain = {metric: value.value for metric, value in values.items() if not metric.startswith(DIFFERENCE)}
            distribution = {metric: plain.pop(metric) for metric in list(plain) if is_distribution(metric)}
            voted = {"voted_images": self.voted_images} if self.voted_images else {}
            uncertainties[name] = {**plain, **voted, "distribution": distribution}
            if name in self.rejection:
                errors = zip(REJECTED, self.rejection[name], strict=True)
                uncertainties[name]["rejection"] = {f"{share:g}": error for share, error in errors}
            if name in self.classes:
                uncertainties[name]["classes"] = self.classes[name].to_dict("records")
        report = {
            "name": self.name,
            "images": self.images,
            "bootstrap": OPTIONS.bootstrap.model_dump(),
            "representation": {name: value.value for name, value in self.representation.items()} | dict(self.facts),
            "uncertainties": uncertainties,
            "differences": self.differences(),
            "notes": self.notes,
        }
        return _without_nan(report)

    def rows(self) -> pd.DataFrame:
        """Return everything as rows of metrics.csv, the model as `backbone`."""
        about = EvaluationSpec(backbone=self.name, dataset="", split="", is_upstream=False)
        counts = {name: Value(count, self.images) for name, count in self.facts.items()}
        rows = metric_rows(about, "representation", None, {**self.representation, **counts})
        voted = {"voted_images": Value(self.voted_images, self.images)} if self.voted_images else {}
        for name, values in self.uncertainties.items():
            errors = {
                f"r1_error_rejecting_{share:g}": Value(error, self.images)
                for share, error in zip(REJECTED, self.rejection.get(name, ()), strict=name in self.rejection)
            }
            rows += metric_rows(about, name, None, {**values, **voted, **errors})
        return pd.DataFrame(rows)


def evaluate(inputs: Inputs, name: str) -> Report:
    """Measure everything that can be computed. name: the model's."""
    images = Images(
        dataset=name,
        correct=inputs.correct,
        label=inputs.label if inputs.correct is not None else None,
        vote_entropy=inputs.vote_entropy,
        lone_class_images=inputs.facts.get("lone_class_images"),
    )
    arrays = inputs.uncertainties
    if inputs.correct is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is undefined becomes a note
            each = {key: Uncertainty(u) for key, u in arrays.items()}
            measured = measure_uncertainties(images, each, None, {}, OPTIONS)
        return Report(name, images.images, {}, measured, {}, inputs.facts, _notes(inputs, measured), {}, {})
    wrong = ~inputs.correct
    resampled = dict(zip(arrays, resampled_aurocs(images, list(arrays.values()), OPTIONS), strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is undefined becomes a note
        rivals = {key: Rival(auroc(u, wrong, name), resampled[key]) for key, u in arrays.items()}
        measured = {}
        for key, u in arrays.items():
            del rivals[key]  # each pair is compared once
            found = measure_uncertainties(images, {key: Uncertainty(u)}, resampled[key][None], rivals, OPTIONS)
            measured |= found
        representation = measure_representation(images, OPTIONS)
    rejection = {key: rejection_curve(u, wrong) for key, u in arrays.items()}
    facts = {key: count for key, count in inputs.facts.items() if key not in representation}
    classes = {}
    if inputs.label is not None:
        classes = {key: class_table(u, wrong, inputs.label, np.array(inputs.classes)) for key, u in arrays.items()}
    notes, worst = _notes(inputs, measured), find_worst(inputs)
    return Report(name, len(wrong), representation, measured, rejection, facts, notes, classes, worst)


def rejection_curve(uncertainty: np.ndarray, wrong: np.ndarray) -> list[float]:
    """Return the 1-NN error of what is kept when floor(share n) of the most uncertain queries are rejected.

    One value per share in `REJECTED`. Ties are rejected in random order; this is the expectation.
    """
    _, risk = risk_coverage_curve(uncertainty, wrong)
    # The product is rounded before the floor: 0.15 * 20 is 3, not 2.9999999999999996.
    return [float(risk[len(risk) - math.floor(round(share * len(risk), 9)) - 1]) for share in REJECTED]


def is_distribution(name: str) -> bool:
    """Return whether a metric describes the distribution of an uncertainty."""
    return any(metric.label_of(name) is not None for metric in DISTRIBUTION)


def _notes(inputs: Inputs, measured: Mapping[str, Mapping[str, Value]]) -> list[str]:
    notes = []
    if inputs.correct is not None:
        wrong = int(np.count_nonzero(~inputs.correct))
        rarer, which = min((wrong, "wrong"), (len(inputs.correct) - wrong, "right"))
        if rarer == 0:
            notes.append(f"No nearest neighbour is {which}, so there is no R-AUROC.")
        elif rarer < _FEW:
            notes.append(f"The nearest neighbours that are {which} are few ({rarer}): the intervals are rough.")
    if inputs.vote_entropy is not None and (unasked := int(np.isnan(inputs.vote_entropy).sum())):
        notes.append(f"{unasked:,} images have no votes; the agreement leaves them out.")
    for name, values in measured.items():
        zeros = len(inputs.uncertainties[name]) - np.flatnonzero(inputs.uncertainties[name]).max(initial=-1) - 1
        if values["min_unc"].value == values["max_unc"].value:
            notes.append(f"{name} is the same for every image, so it says nothing.")
        elif zeros > 1 and np.count_nonzero(inputs.uncertainties[name]) == len(inputs.uncertainties[name]) - zeros:
            notes.append(f"{name} is 0 for the last {zeros:,} images and for no other: was writing it interrupted?")
        elif "auroc_correct_ci_high" in values and values["auroc_correct_ci_high"].value < 0.5:
            notes.append(
                f"{name} ranks worse than chance. Should larger values mean more certain? Then give its negative."
            )
    if lone := inputs.facts.get("lone_class_images", 0):
        notes.append(
            f"Classes with a single image: {lone:,}. Such an image's neighbour can't be right, so it counts as wrong."
        )
    return notes


def _without_nan(value: Any) -> Any:
    """Return nested values with None for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
