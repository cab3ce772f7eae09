"""How the uncertainty goes with human disagreement. Images without votes are left out."""

from __future__ import annotations

import numpy as np

from pipeline_lib.metrics.auroc import auroc
from pipeline_lib.metrics.metric import Metric, Value
from pipeline_lib.metrics.ranks import spearman


def vote_entropy_correlation(uncertainty: np.ndarray, vote_entropy: np.ndarray, dataset: str) -> Value:
    """Return Spearman's correlation of u with the entropy of the votes, and the number of images with votes.

    uncertainty: float [n]. vote_entropy: float [n], NaN for images without votes.
    """
    has_votes = ~np.isnan(vote_entropy)
    return Value(spearman(uncertainty[has_votes], vote_entropy[has_votes], dataset), int(has_votes.sum()))


def auroc_not_dirac(uncertainty: np.ndarray, vote_entropy: np.ndarray, dataset: str) -> Value:
    """Return the AUROC of u for a vote entropy above zero ("not all votes name one class"), and the number of images.

    uncertainty: float [n]. vote_entropy: float [n], NaN for images without votes.
    NaN with a warning when the voters agree on all images or on none.
    """
    has_votes = ~np.isnan(vote_entropy)
    disagree = vote_entropy[has_votes] > 0
    value = auroc(uncertainty[has_votes], disagree, f"{dataset}, agreement of votes")
    return Value(value, int(has_votes.sum()))


METRICS = (
    Metric(
        "rcorr_entropy",
        "Corr. (votes)",
        "higher",
        "Spearman's rank correlation of the uncertainty with the entropy of the human votes.",
        vote_entropy_correlation,
        ("uncertainty", "vote_entropy", "dataset"),
    ),
    Metric(
        "auroc_not_dirac",
        "AUROC (ambiguous)",
        "higher",
        "Probability that an image on which the votes disagree has a larger uncertainty than one on which all agree.",
        auroc_not_dirac,
        ("uncertainty", "vote_entropy", "dataset"),
    ),
)
