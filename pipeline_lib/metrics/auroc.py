"""Area under the receiver operating characteristic, by exact ranks."""

from __future__ import annotations

import warnings

import numpy as np

from pipeline_lib.metrics.checks import require_no_nan
from pipeline_lib.metrics.ranks import average_ranks


def auroc(uncertainty: np.ndarray, is_positive: np.ndarray, dataset: str) -> float:
    """Return the probability that a random positive has a larger uncertainty than a random negative; ties count half.

    With average ranks R_i of u and n1 positives among n,

        AUROC = (sum_{i positive} R_i - n1 (n1 + 1) / 2) / (n1 (n - n1)),

    the Mann-Whitney statistic. Ranks are exact, so the value is the same for every strictly increasing map of u, and
    one half for a constant u.

    Parameters
    ----------
    uncertainty
        u, float [n].
    is_positive
        bool [n].
    dataset
        Named in messages.

    Returns
    -------
    float
        NaN, with a warning, when all or none are positive.

    Raises
    ------
    PipelineError
        For NaN in u, naming the row.
    """
    require_no_nan(uncertainty, f"uncertainty on {dataset}")
    positives = int(np.count_nonzero(is_positive))
    negatives = len(is_positive) - positives
    if positives == 0 or negatives == 0:
        which = "positive" if negatives == 0 else "negative"
        warnings.warn(f"{dataset}: all {len(is_positive)} images are {which}, so AUROC is undefined", stacklevel=2)
        return float("nan")
    rank_sum = average_ranks(uncertainty)[np.asarray(is_positive, dtype=bool)].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))
