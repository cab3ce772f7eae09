"""All that is measured about the uncertainties of one embedding model, as nested values and as tidy rows."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.arrays.inputs import Inputs
from pipeline_lib.evaluation.metric_rows import Value, metric_rows
from pipeline_lib.evaluation.spec import EvaluationSpec
from pipeline_lib.metrics.auroc import auroc
from pipeline_lib.metrics.bootstrap import bootstrap_auroc, bootstrap_recall_at_1, percentile_interval
from pipeline_lib.metrics.correlation import auroc_not_dirac, vote_entropy_correlation
from pipeline_lib.metrics.retrieval import recall_at_1
from pipeline_lib.metrics.selective import aurc, coverage_at_accuracy, excess_aurc, risk_coverage_curve
from pipeline_lib.metrics.summary import uncertainty_summary

RESAMPLES, CONFIDENCE, SEED = 1000, 0.95, 0
ACCURACIES = (0.9, 0.95)
REJECTED = tuple(percent / 100 for percent in range(0, 51, 5))
_FEW = 30


def evaluate(inputs: Inputs, name: str) -> dict[str, Any]:
    """Return the nested metrics: what cannot be computed (an AUROC of right images only) is None.

    Keys: `name`, `images`, `bootstrap`, `representation`, `uncertainties` (by name), `differences` (one entry per pair
    of uncertainties: R-AUROC of `first` minus that of `second`, on the same resamples), `notes` (what a reader should
    know about these numbers). name: the model's.
    """
    wrong = ~inputs.correct
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is undefined becomes a note
        metrics = {key: _metrics(values, inputs, name) for key, values in inputs.uncertainties.items()}
    resampled = bootstrap_auroc(list(inputs.uncertainties.values()), wrong, RESAMPLES, SEED)
    for values, entry in zip(resampled, metrics.values(), strict=True):
        entry["auroc_correct_ci_low"], entry["auroc_correct_ci_high"] = percentile_interval(values, CONFIDENCE)
    differences = []
    for (one, first), (two, second) in itertools.combinations(enumerate(metrics), 2):
        low, high = percentile_interval(resampled[one] - resampled[two], CONFIDENCE)
        value = metrics[first]["auroc_correct"] - metrics[second]["auroc_correct"]
        differences.append({"first": first, "second": second, "difference": value, "ci_low": low, "ci_high": high})
    low, high = percentile_interval(bootstrap_recall_at_1(inputs.correct, RESAMPLES, SEED), CONFIDENCE)
    report = {
        "name": name,
        "images": len(wrong),
        "bootstrap": {"resamples": RESAMPLES, "confidence": CONFIDENCE, "seed": SEED},
        "representation": {
            "r1": recall_at_1(inputs.correct),
            "r1_ci_low": low,
            "r1_ci_high": high,
            **inputs.facts,
        },
        "uncertainties": metrics,
        "differences": differences,
        "notes": _notes(inputs, metrics),
    }
    return _without_nan(report)


def rejection_curve(uncertainty: np.ndarray, wrong: np.ndarray) -> list[float]:
    """Return the 1-NN error of what is kept when floor(share n) of the most uncertain queries are rejected.

    One value per share in `REJECTED`. Ties are rejected in random order; this is the expectation.
    """
    _, risk = risk_coverage_curve(uncertainty, wrong)
    # The product is rounded before the floor: 0.15 * 20 is 3, not 2.9999999999999996.
    return [float(risk[len(risk) - math.floor(round(share * len(risk), 9)) - 1]) for share in REJECTED]


def tidy_rows(report: dict[str, Any]) -> pd.DataFrame:
    """Return the metrics as rows in the columns of `metrics.csv`: one value per row, the model as `backbone`."""
    spec = EvaluationSpec(backbone=report["name"], dataset="", split="", is_upstream=False)
    n = report["images"]

    def values(metrics: dict[str, Any]) -> dict[str, Value]:
        single = {key: value for key, value in metrics.items() if not isinstance(value, dict)}
        counted = {key: metrics["voted_images"] for key in ("rcorr_entropy", "auroc_not_dirac") if key in metrics}
        return {key: Value(math.nan if value is None else value, counted.get(key, n)) for key, value in single.items()}

    rows = metric_rows(spec, "representation", None, values(report["representation"]))
    for name, metrics in report["uncertainties"].items():
        errors = {f"r1_error_rejecting_{share}": value for share, value in metrics["rejection"].items()}
        rows += metric_rows(spec, name, None, values(metrics | metrics["distribution"] | errors))
    for each in report["differences"]:
        key = f"auroc_correct_minus_{each['second']}"
        named = {key: each["difference"], f"{key}_ci_low": each["ci_low"], f"{key}_ci_high": each["ci_high"]}
        rows += metric_rows(spec, each["first"], None, values(named))
    return pd.DataFrame(rows)


def _metrics(uncertainty: np.ndarray, inputs: Inputs, name: str) -> dict[str, Any]:
    wrong = ~inputs.correct
    metrics: dict[str, Any] = {
        "auroc_correct": auroc(uncertainty, wrong, name),
        "auroc_correct_ci_low": math.nan,  # filled in for all uncertainties at once
        "auroc_correct_ci_high": math.nan,
        "aurc": aurc(uncertainty, wrong, name),
        "e_aurc": excess_aurc(uncertainty, wrong, name),
    }
    for accuracy in ACCURACIES:
        metrics[f"coverage_at_r1_{accuracy:g}"] = coverage_at_accuracy(uncertainty, wrong, accuracy)
    if inputs.vote_entropy is not None:
        metrics["rcorr_entropy"] = vote_entropy_correlation(uncertainty, inputs.vote_entropy, name)
        metrics["auroc_not_dirac"] = auroc_not_dirac(uncertainty, inputs.vote_entropy, name)
        metrics["voted_images"] = int(np.count_nonzero(~np.isnan(inputs.vote_entropy)))
    errors = rejection_curve(uncertainty, wrong)
    metrics["rejection"] = {f"{share:g}": error for share, error in zip(REJECTED, errors, strict=True)}
    metrics["distribution"] = uncertainty_summary(uncertainty, name)
    return metrics


def _notes(inputs: Inputs, metrics: dict[str, dict[str, Any]]) -> list[str]:
    notes = []
    wrong = int(np.count_nonzero(~inputs.correct))
    rarer, which = min((wrong, "wrong"), (len(inputs.correct) - wrong, "right"))
    if rarer == 0:
        notes.append(f"No nearest neighbour is {which}, so there is no R-AUROC.")
    elif rarer < _FEW:
        notes.append(f"The nearest neighbours that are {which} are few ({rarer}): the intervals are rough.")
    for name, entry in metrics.items():
        if entry["distribution"]["min_unc"] == entry["distribution"]["max_unc"]:
            notes.append(f"{name} is the same for every image, so it says nothing.")
        elif entry["auroc_correct_ci_high"] < 0.5:
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
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
