"""The uncertainty of downstream images among upstream ones."""

from __future__ import annotations

import numpy as np

from pipeline_lib.metrics.auroc import auroc
from pipeline_lib.metrics.metric import Metric, Value


def auroc_ood(upstream: np.ndarray, downstream: np.ndarray, dataset: str) -> Value:
    """Return the AUROC of u for "this is a downstream image" among all images of both sets.

    upstream, downstream: uncertainties, float [n] and [m]. How many there are of each doesn't matter to an AUROC.
    """
    together = np.concatenate([upstream, downstream])
    return Value(auroc(together, np.arange(len(together)) >= len(upstream), dataset), len(together))


def _mixed(uncertainty: np.ndarray, wrong: np.ndarray, dataset: str) -> Value:
    return Value(auroc(uncertainty, wrong, f"{dataset} mixed with upstream"), len(wrong))


METRICS = (
    Metric(
        "auroc_ood",
        "AUROC (OOD)",
        "higher",
        "Probability that a random downstream image has a larger uncertainty than a random upstream image; 0.5: both "
        "are equally uncertain.",
        auroc_ood,
        ("upstream_uncertainty", "uncertainty", "dataset"),
    ),
    Metric(
        "auroc_correct_mixed",
        "R-AUROC (mixed)",
        "higher",
        "R-AUROC in a mix of equally many upstream and downstream images; a neighbour of the other set is wrong.",
        _mixed,
        ("mixed_uncertainty", "mixed_wrong", "dataset"),
    ),
)
