"""How a centre crop, a known deterioration, changes the uncertainty."""

from __future__ import annotations

import numpy as np

from pipeline_lib.metrics.checks import require_no_nan
from pipeline_lib.metrics.metric import Metric
from pipeline_lib.metrics.ranks import spearman


def crop_has_bigger_uncertainty(uncertainty: np.ndarray, crop_uncertainty: np.ndarray, dataset: str) -> float:
    """Return the share of images whose crop has a strictly larger uncertainty.

    uncertainty, crop_uncertainty: float [n], row by row the same image. dataset: named in messages.
    Raises `PipelineError` for NaN, naming the row.
    """
    require_no_nan(uncertainty, f"uncertainty on {dataset}")
    require_no_nan(crop_uncertainty, f"uncertainty of the crops of {dataset}")
    return float(np.mean(crop_uncertainty > uncertainty))


def crop_correlation(crop_uncertainty: np.ndarray, crop_fraction: np.ndarray, dataset: str) -> float:
    """Return Spearman's correlation of -u(crop) with the share of the side that the crop keeps.

    crop_uncertainty, crop_fraction: float [n].
    """
    return spearman(-crop_uncertainty, crop_fraction, dataset)


METRICS = (
    Metric(
        "croppedHasBiggerUnc",
        "Crop raises u",
        "higher",
        "Share of images whose centre crop has a larger uncertainty than the whole image.",
        crop_has_bigger_uncertainty,
        ("uncertainty", "crop_uncertainty", "dataset"),
    ),
    Metric(
        "rcorr_crop_unc",
        "Corr. (crop)",
        "higher",
        "Spearman's rank correlation of the certainty (-u) of centre crops with the share of the side that they keep.",
        crop_correlation,
        ("crop_uncertainty", "crop_fraction", "dataset"),
    ),
)
