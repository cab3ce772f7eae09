"""Selective prediction: how wrong is what is kept when only the least uncertain images are answered?

With images in ascending order of u, the risk at coverage k / n is the share of wrong ones among the first k
(Geifman and El-Yaniv, Selective Classification for Deep Neural Networks, 2017). Images of equal u have no order:
their errors are spread evenly over them, which is the expectation over all their orders, so nothing here depends on
the order of rows. Everything is the same for every strictly increasing map of u.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline_lib.metrics.checks import require_no_nan
from pipeline_lib.metrics.metric import Metric


def risk_coverage_curve(uncertainty: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the coverages k / n and the risk at each, float64 [n] and [n].

    With E wrong images below a group of m equal values that holds e wrong ones,

        risk(k) = (E + e j / m) / k    for the j-th image of the group.

    Parameters
    ----------
    uncertainty
        u, float [n].
    wrong
        bool [n].

    Raises
    ------
    PipelineError
        For NaN in u, naming the row; so do the metrics below.
    """
    require_no_nan(uncertainty, "uncertainty")
    kept, errors = _errors_of_groups(uncertainty, wrong)
    k = np.arange(1, len(uncertainty) + 1)
    # Linear between the ends of two groups; both ends are integers, so every end is exact.
    return k / len(k), np.interp(k, np.append(0, kept), np.append(0, errors)) / k


def aurc(uncertainty: np.ndarray, wrong: np.ndarray, dataset: str) -> float:
    """Return the area under the risk-coverage curve, the mean of the risk over the n coverages; zero is best.

    uncertainty: float [n]. wrong: bool [n]. dataset: named in messages.
    """
    require_no_nan(uncertainty, f"uncertainty on {dataset}")
    return float(risk_coverage_curve(uncertainty, wrong)[1].mean())


def excess_aurc(uncertainty: np.ndarray, wrong: np.ndarray, dataset: str) -> float:
    """Return E-AURC, by how much the AURC exceeds that of the oracle, which puts all wrong images last.

    Geifman et al., Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers, 2019, approximate the oracle's
    AURC by an integral; here it is that of these n images, so that an oracle's E-AURC is exactly zero.

    uncertainty: float [n]. wrong: bool [n]. dataset: named in messages.
    """
    oracle = np.asarray(wrong, dtype=np.float64)
    return aurc(uncertainty, wrong, dataset) - aurc(oracle, wrong, dataset)


def coverage_at_accuracy(uncertainty: np.ndarray, wrong: np.ndarray, accuracy: float) -> float:
    """Return the largest coverage at which at least `accuracy` of the kept images are right; zero where there is none.

    A threshold on u keeps images of equal u together, so only coverages at the end of such a group count.

    uncertainty: float [n]. wrong: bool [n]. accuracy: a share.
    """
    require_no_nan(uncertainty, "uncertainty")
    kept, errors = _errors_of_groups(uncertainty, wrong)
    enough = kept[(kept - errors) / kept >= accuracy]
    return float(enough.max(initial=0) / len(uncertainty))


def _errors_of_groups(uncertainty: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, up to the end of each group of equal u in ascending order, how many images and how many wrong ones."""
    order = np.argsort(uncertainty, kind="stable")
    ordered = uncertainty[order]
    kept = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, len(ordered))
    return kept, np.cumsum(np.asarray(wrong, dtype=bool)[order], dtype=np.int64)[kept - 1]


def _coverages(uncertainty: np.ndarray, wrong: np.ndarray, target_accuracies: Sequence[float]) -> dict[str, float]:
    return {f"coverage_at_r1_{share:g}": coverage_at_accuracy(uncertainty, wrong, share) for share in target_accuracies}


METRICS = (
    Metric(
        "aurc",
        "AURC",
        "lower",
        "Mean risk over all coverages; smaller is better. It depends on the error of the model too.",
        aurc,
        ("uncertainty", "wrong", "dataset"),
        "z.4f",
        is_shown=False,
    ),
    Metric(
        "e_aurc",
        "E-AURC",
        "lower",
        "AURC minus that of an oracle that keeps all right queries first; zero is best.",
        excess_aurc,
        ("uncertainty", "wrong", "dataset"),
        "z.4f",
        is_shown=False,
    ),
    Metric(
        "coverage_at_r1_{share}",
        "Coverage at R@1 {share:.6%}",
        "higher",
        "Largest share of queries, the least uncertain first, that keeps at least this accuracy.",
        _coverages,
        ("uncertainty", "wrong", "target_accuracies"),
        "z.1%",
        is_shown=False,
    ),
)
