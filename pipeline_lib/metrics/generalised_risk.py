"""Selective prediction without dividing by what is kept."""

from __future__ import annotations

import numpy as np

from pipeline_lib.metrics.checks import require_no_nan
from pipeline_lib.metrics.metric import Metric
from pipeline_lib.metrics.selective import risk_coverage_curve


def augrc(uncertainty: np.ndarray, wrong: np.ndarray, dataset: str) -> float:
    """Return the area under the generalised-risk-coverage curve; zero is best, half the error rate is chance.

    The generalised risk at coverage c is risk(c) c, the share of all images that are wrong and kept; this is its mean
    over the n coverages. Unlike in the AURC, the first few images don't count more than the others.

    Traub et al., Overcoming Common Flaws in the Evaluation of Selective Classification Systems, 2024.

    uncertainty: float [n]. wrong: bool [n]. dataset: named in messages.
    """
    require_no_nan(uncertainty, f"uncertainty on {dataset}")
    coverage, risk = risk_coverage_curve(uncertainty, wrong)
    return float((coverage * risk).mean())


METRICS = (
    Metric(
        "augrc",
        "AUGRC",
        "lower",
        "Mean over all coverages of the share of all images that is kept and wrong; half the error rate is chance.",
        augrc,
        ("uncertainty", "wrong", "dataset"),
        "z.4f",
        is_shown=False,
    ),
)
