"""How the uncertainty goes with human disagreement and with a known deterioration."""

from __future__ import annotations

import warnings

import numpy as np

from pipeline_lib.metrics.auroc import auroc
from pipeline_lib.metrics.checks import require_no_nan
from pipeline_lib.metrics.ranks import average_ranks


def vote_entropy_correlation(uncertainty: np.ndarray, vote_entropy: np.ndarray, dataset: str) -> float:
    """Return `rcorr_entropy`, Spearman's correlation of u with the entropy of the votes.

    uncertainty: float [n]. vote_entropy: float [n], NaN for images without votes, which are left out.
    """
    has_votes = ~np.isnan(vote_entropy)
    return spearman(uncertainty[has_votes], vote_entropy[has_votes], dataset)


def auroc_not_dirac(uncertainty: np.ndarray, vote_entropy: np.ndarray, dataset: str) -> float:
    """Return the AUROC of u for "the votes don't all name one class", that is for a vote entropy above zero.

    uncertainty: float [n]. vote_entropy: float [n], NaN for images without votes, which are left out.
    Returns NaN with a warning when the voters agree on all images or on none.
    """
    has_votes = ~np.isnan(vote_entropy)
    return auroc(uncertainty[has_votes], vote_entropy[has_votes] > 0, f"{dataset}, agreement of votes")


def crop_correlation(crop_uncertainty: np.ndarray, crop_fraction: np.ndarray, dataset: str) -> float:
    """Return `rcorr_crop_unc`, Spearman's correlation of -u(crop) with the share of the side that the crop keeps.

    crop_uncertainty, crop_fraction: float [n]. One is best: the less is left, the larger is u.
    """
    return spearman(-crop_uncertainty, crop_fraction, dataset)


def spearman(first: np.ndarray, second: np.ndarray, dataset: str) -> float:
    """Return Spearman's rank correlation: Pearson's correlation of the ranks, with average ranks for ties.

    first, second: float [n]. Returns NaN with a warning naming the dataset when either is constant.
    Raises `PipelineError` for NaN, naming the row.
    """
    require_no_nan(first, f"uncertainty on {dataset}")
    require_no_nan(second, f"reference on {dataset}")
    ranks = [average_ranks(values) for values in (first, second)]
    # Ranks are multiples of one half around a mean that is one too: these sums are exact.
    deviations = [values - (len(values) + 1) / 2 for values in ranks]
    spread = [float(values @ values) for values in deviations]
    if len(first) < 2 or min(spread) == 0:
        warnings.warn(
            f"{dataset}: {len(first)} images with constant values, so the correlation is undefined", stacklevel=2
        )
        return float("nan")
    return float(deviations[0] @ deviations[1] / np.sqrt(spread[0] * spread[1]))
