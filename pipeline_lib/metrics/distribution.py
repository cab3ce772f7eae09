"""The distribution of an uncertainty over images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline_lib.metrics.checks import require_no_nan
from pipeline_lib.metrics.metric import Metric

_QUANTILES = (10, 25, 50, 75, 90)
_NEEDS = ("uncertainty", "dataset")


def uncertainty_quantiles(uncertainty: np.ndarray, dataset: str) -> dict[str, float]:
    """Return quantiles of u, which interpolate linearly, by metric. uncertainty: float [n]."""
    values = np.percentile(_checked(uncertainty, dataset), _QUANTILES)
    return {f"unc_q{percent}": float(value) for percent, value in zip(_QUANTILES, values, strict=True)}


def quantile_ranges(uncertainty: np.ndarray, dataset: str) -> dict[str, float]:
    """Return the distances between quantiles of u, by metric. uncertainty: float [n]."""
    quantile = uncertainty_quantiles(uncertainty, dataset)
    pairs = ((90, 10), (75, 25))
    return {f"unc_iqr_{high}_{low}": quantile[f"unc_q{high}"] - quantile[f"unc_q{low}"] for high, low in pairs}


def _checked(uncertainty: np.ndarray, dataset: str) -> np.ndarray:
    require_no_nan(uncertainty, f"uncertainty on {dataset}")
    return np.asarray(uncertainty, dtype=np.float64)


def _statistic(function: Callable[[np.ndarray], np.floating]) -> Callable[[np.ndarray, str], float]:
    return lambda uncertainty, dataset: float(function(_checked(uncertainty, dataset)))


METRICS = (
    *(
        Metric(name, label, "", f"{label} of the uncertainty.", _statistic(function), _NEEDS, "z.4g", is_shown=False)
        for name, label, function in (
            ("min_unc", "Minimum", np.min),
            ("avg_unc", "Mean", np.mean),
            ("max_unc", "Maximum", np.max),
        )
    ),
    Metric(
        "unc_q{percent}",
        "{percent:g}%",
        "",
        "Quantile: the uncertainty below which this share of the images lies.",
        uncertainty_quantiles,
        _NEEDS,
        "z.4g",
        is_shown=False,
    ),
    Metric(
        "unc_iqr_{high}_{low}",
        "{low:g} to {high:g}%",
        "",
        "Distance between two quantiles of the uncertainty.",
        quantile_ranges,
        _NEEDS,
        "z.4g",
        is_shown=False,
    ),
)
