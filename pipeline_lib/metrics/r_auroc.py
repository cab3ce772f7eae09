"""Telling which nearest neighbours are wrong: the metric that everything here is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pipeline_lib.config.evaluation import Bootstrap
from pipeline_lib.metrics.auroc import auroc
from pipeline_lib.metrics.bootstrap import percentile_interval
from pipeline_lib.metrics.metric import Metric


class Rival(NamedTuple):
    """What an uncertainty is compared with: the R-AUROC of another one, also on each resample, float64 [resamples]."""

    r_auroc: float
    resampled: np.ndarray


def _interval(resampled: np.ndarray, bootstrap: Bootstrap) -> dict[str, float]:
    return _ends("auroc_correct", resampled, bootstrap)


def _differences(
    uncertainty: np.ndarray,
    wrong: np.ndarray,
    resampled: np.ndarray,
    rivals: Mapping[str, Rival],
    bootstrap: Bootstrap,
    dataset: str,
) -> dict[str, float]:
    ours, found = auroc(uncertainty, wrong, dataset), {}
    for name, (theirs, on_resamples) in rivals.items():
        metric = f"auroc_correct_minus_{name}"
        found[metric] = ours - theirs
        found |= _ends(metric, resampled - on_resamples, bootstrap)
    return found


def _ends(metric: str, resampled: np.ndarray, bootstrap: Bootstrap) -> dict[str, float]:
    low, high = percentile_interval(resampled, bootstrap.confidence)
    return {f"{metric}_ci_low": low, f"{metric}_ci_high": high}


METRICS = (
    Metric(
        "auroc_correct",
        "R-AUROC",
        "higher",
        "Probability that a random wrong query has a larger uncertainty than a random right one; ties count half. "
        "It depends on the order of the uncertainties alone.",
        auroc,
        ("uncertainty", "wrong", "dataset"),
    ),
    Metric(
        "auroc_correct_ci_{end}",
        "R-AUROC, {end} end",
        "",
        "Ends of the bootstrap interval of R-AUROC, over classes or images; neighbours are not searched anew.",
        _interval,
        ("resampled", "bootstrap"),
        is_shown=False,
    ),
    Metric(
        "auroc_correct_minus_{rival}",
        "R-AUROC minus that of {rival}",
        "higher",
        "By how much R-AUROC exceeds that of another uncertainty; ``_ci_low`` and ``_ci_high`` are the ends of its "
        "interval, from the same resamples.",
        _differences,
        ("uncertainty", "wrong", "resampled", "rivals", "bootstrap", "dataset"),
        "+z.3f",
        is_shown=False,
    ),
)
