"""Summaries of an uncertainty, and how a crop changes it."""

from __future__ import annotations

import numpy as np

from pipeline_lib.metrics.checks import require_no_nan

_QUANTILES = (10, 25, 50, 75, 90)


def uncertainty_summary(uncertainty: np.ndarray, dataset: str) -> dict[str, float]:
    """Return minimum, mean, maximum, quantiles and quantile ranges of u, by metric key.

    uncertainty: float [n]. Quantiles interpolate linearly. Raises `PipelineError` for NaN, naming the row.
    """
    require_no_nan(uncertainty, f"uncertainty on {dataset}")
    values = np.asarray(uncertainty, dtype=np.float64)
    quantile = dict(zip(_QUANTILES, np.percentile(values, _QUANTILES).tolist(), strict=True))
    return {
        "min_unc": float(values.min()),
        "avg_unc": float(values.mean()),
        "max_unc": float(values.max()),
        **{f"unc_q{percent}": value for percent, value in quantile.items()},
        "unc_iqr_90_10": quantile[90] - quantile[10],
        "unc_iqr_75_25": quantile[75] - quantile[25],
    }


def crop_has_bigger_uncertainty(uncertainty: np.ndarray, crop_uncertainty: np.ndarray) -> float:
    """Return `croppedHasBiggerUnc`, the share of images whose crop has a strictly larger uncertainty.

    uncertainty, crop_uncertainty: float [n], row by row the same image.
    """
    return float(np.mean(crop_uncertainty > uncertainty))
