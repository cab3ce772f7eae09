"""The uncertainty of downstream images among upstream ones."""

from __future__ import annotations

import numpy as np

from pipeline_lib.config.evaluation import Bootstrap
from pipeline_lib.metrics.auroc import auroc
from pipeline_lib.metrics.metric import Metric, Value


def auroc_ood(upstream: np.ndarray, downstream: np.ndarray, bootstrap: Bootstrap, dataset: str) -> Value:
    """Return the AUROC of u for "this is a downstream image" in a mix of equally many images of both sets.

    upstream, downstream: uncertainties, float [n] and [m]. The larger set is sampled without replacement by the seed
    of the bootstrap, the same images for every method.
    """
    size = min(len(upstream), len(downstream))
    mix = np.concatenate([_sample(values, size, bootstrap.seed) for values in (upstream, downstream)])
    return Value(auroc(mix, np.arange(2 * size) >= size, dataset), 2 * size)


def _sample(values: np.ndarray, size: int, seed: int) -> np.ndarray:
    if len(values) == size:
        return values
    return values[np.random.default_rng(seed).choice(len(values), size, replace=False)]


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
        ("upstream_uncertainty", "uncertainty", "bootstrap", "dataset"),
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
