"""Telling downstream from upstream images by their uncertainty."""

from __future__ import annotations

import numpy as np

from pipeline_lib.metrics.auroc import auroc


def auroc_ood(upstream: np.ndarray, downstream: np.ndarray, seed: int, dataset: str) -> float:
    """Return the AUROC of u for "this is a downstream image" in a mix of equally many images of both sets.

    upstream, downstream: uncertainties, float [n] and [m]. The larger set is sampled without replacement by `seed`,
    the same images for every method.
    """
    size = min(len(upstream), len(downstream))
    mix = np.concatenate([_sample(upstream, size, seed), _sample(downstream, size, seed)])
    return auroc(mix, np.arange(2 * size) >= size, dataset)


def _sample(values: np.ndarray, size: int, seed: int) -> np.ndarray:
    if len(values) == size:
        return values
    return values[np.random.default_rng(seed).choice(len(values), size, replace=False)]
