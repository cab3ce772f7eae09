"""Percentile-bootstrap intervals over classes or images.

A resample draws as many whole classes as there are, with replacement, or as many images; what matters is how often each
image is drawn. Neighbours are not searched anew. Images share a gallery and a class, so they are not independent of
each other, and on an unseen set the classes are a sample too: intervals over images are too narrow, those over classes
about as wide as they should be (`tests/benchmarks/benchmark_coverage.py`). Few classes tell little of other classes, so
that below `FEWEST_CLASSES` the intervals are over images unless the config asks for classes.

The counts depend on the seed and the labels alone, so all methods and seeds on one dataset see the same resamples:
differences between them are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from pipeline_lib.config.evaluation import Bootstrap
from pipeline_lib.metrics.checks import require_no_nan

FEWEST_CLASSES = 10
_HALF, _LOWER = np.uint64(32), np.uint64(2**32 - 1)


@dataclass(frozen=True)
class Resampling:
    """The resamples of one set.

    images, resamples, seed: how many, and of which draw. class_of: the class of each image, int64 [images], where whole
    classes are drawn; None where images are.
    """

    images: int
    resamples: int
    seed: int
    class_of: np.ndarray | None = None

    @classmethod
    def of(cls, bootstrap: Bootstrap, images: int, label: np.ndarray | None) -> Self:
        """Return the resamples that a config asks for. label: of each image, int [images]; None = not known."""
        class_of = None
        if label is not None and bootstrap.unit != "images":
            classes, found = np.unique(label, return_inverse=True)
            if bootstrap.unit == "classes" or len(classes) >= FEWEST_CLASSES:
                class_of = found
        return cls(images, bootstrap.resamples, bootstrap.seed, class_of)

    @property
    def classes(self) -> int:
        """How many classes are drawn; 0 where images are."""
        return 0 if self.class_of is None else int(self.class_of.max()) + 1

    def drawn(self) -> Iterator[np.ndarray]:
        """Yield how often each class, or image, is drawn, int64 [classes or images], for each resample."""
        units = self.classes or self.images
        generator = np.random.default_rng(self.seed)
        for _ in range(self.resamples):
            yield np.bincount(generator.integers(0, units, units), minlength=units)

    def counts(self) -> Iterator[np.ndarray]:
        """Yield how often each image is drawn, int64 [images], for each resample."""
        for drawn in self.drawn():
            yield drawn if self.class_of is None else drawn[self.class_of]


def bootstrap_recall_at_1(correct: np.ndarray, resampling: Resampling) -> np.ndarray:
    """Return Recall@1 of each resample, float64 [resamples]. correct: bool [n]."""
    values = np.asarray(correct, dtype=np.float64)
    return np.array([counts @ values / counts.sum() for counts in resampling.counts()])


def bootstrap_auroc(
    uncertainties: np.ndarray | Sequence[np.ndarray], is_positive: np.ndarray, resampling: Resampling
) -> np.ndarray:
    """Return the AUROC of each uncertainty on each resample, float64 [m, resamples].

    Each uncertainty is sorted once. With p_g and q_g the counts of positives and negatives in the g-th group of
    equal values, AUROC = sum_g p_g (sum_{h < g} q_h + q_g / 2) / (sum_g p_g sum_g q_g), which takes O(n) per resample.
    Of whole classes, a and b drawn w_a and w_b times, the sum is sum_ab w_a w_b wins_ab, which takes O(n classes) once.
    Ties count half, as in `auroc`. NaN where a resample has positives only or negatives only.

    Parameters
    ----------
    uncertainties
        float [m, n], one row per method or seed.
    is_positive
        bool [n].
    resampling
        How often each image is drawn.

    Raises
    ------
    PipelineError
        For NaN in an uncertainty, naming the row.
    """
    for uncertainty in uncertainties:
        require_no_nan(uncertainty, "uncertainty")
    orders = [_SortedGroups(uncertainty, is_positive) for uncertainty in uncertainties]
    resamples, counts = resampling.resamples, resampling.counts()
    if resampling.class_of is not None and resampling.classes <= resamples:
        drawn = np.array(list(resampling.drawn()), np.float64)
        return np.array([order.auroc_of_classes(drawn, resampling.class_of) for order in orders])
    values = np.empty((len(orders), resamples))
    # Two resamples at a time, as the lower and the upper half of one integer: half as many look-ups and sums.
    pair, memory = np.empty(len(is_positive), np.uint64), np.empty((4, len(is_positive) + 1), np.uint64)
    for first in range(0, resamples, 2):
        pair[:] = next(counts)
        if first + 1 < resamples:
            pair += next(counts).astype(np.uint64) << _HALF
        for position, order in enumerate(orders):
            values[position, first : first + 2] = order.auroc(pair, memory)[: resamples - first]
    return values


def percentile_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the bounds of the central `confidence` share of bootstrap values, float [resamples].

    NaN values (undefined on their resample) are left out; both bounds are NaN when no other is there.
    """
    defined = values[~np.isnan(values)]
    if len(defined) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


class _SortedGroups:
    """An uncertainty in ascending order, with the borders of its groups of equal values."""

    def __init__(self, uncertainty: np.ndarray, is_positive: np.ndarray) -> None:
        order = np.argsort(uncertainty, kind="stable")
        ordered = uncertainty[order]
        is_positive = np.asarray(is_positive, dtype=bool)[order]
        group = np.cumsum(np.append(False, ordered[1:] != ordered[:-1]))
        self._positive, self._negative = order[is_positive], order[~is_positive]
        # For each positive: how many negatives, in order, lie in lower groups, and in lower groups or its own.
        negative_group = group[~is_positive]
        self._below = np.searchsorted(negative_group, group[is_positive], side="left")
        self._up_to = np.searchsorted(negative_group, group[is_positive], side="right")
        self._has_ties = not np.array_equal(self._below, self._up_to)

    def auroc(self, pair: np.ndarray, memory: np.ndarray) -> list[float]:
        """Return the AUROC of two resamples. Counts are whole numbers, so all sums are exact.

        pair: their counts, uint64 [n], one in each half; sums are below 2^32 where fewer than 2^31 images are drawn.
        memory: uint64 [4, n + 1], to work in: new memory for every resample costs more than the sums.
        """
        positive = _take(pair, self._positive, memory[0])
        cumulative = memory[1, : len(self._negative) + 1]
        cumulative[0] = 0
        np.cumsum(_take(pair, self._negative, memory[2]), out=cumulative[1:])
        below = _take(cumulative, self._below, memory[2])
        below += _take(cumulative, self._up_to, memory[3]) if self._has_ties else below
        return [
            _share(half(positive) @ half(below), 2 * half(positive).sum() * half(cumulative[-1:]).sum())
            for half in (_lower, _upper)
        ]

    def auroc_of_classes(self, drawn: np.ndarray, class_of: np.ndarray) -> np.ndarray:
        """Return the AUROC of each resample, float64 [resamples]. All sums are of whole numbers, so they are exact.

        drawn: how often each class is, float64 [resamples, classes]. class_of: of each image.
        """
        classes = drawn.shape[1]
        positive, negative = class_of[self._positive], class_of[self._negative]
        # Twice the pairs in which a positive of one class wins over a negative of another: [negative's, positive's].
        wins, cumulative = np.empty((classes, classes)), np.zeros(len(negative) + 1, np.int64)
        for number in range(classes):
            np.cumsum(negative == number, out=cumulative[1:])
            won = cumulative[self._below] + cumulative[self._up_to]
            wins[number] = np.bincount(positive, won, classes)
        of_each = [drawn @ np.bincount(of, minlength=classes) for of in (positive, negative)]
        sums = zip(((drawn @ wins) * drawn).sum(axis=1), 2 * of_each[0] * of_each[1], strict=True)
        return np.array([_share(won, pairs) for won, pairs in sums])


def _lower(pair: np.ndarray) -> np.ndarray:
    return (pair & _LOWER).astype(np.float64)


def _upper(pair: np.ndarray) -> np.ndarray:
    return (pair >> _HALF).astype(np.float64)


def _take(values: np.ndarray, index: np.ndarray, memory: np.ndarray) -> np.ndarray:
    # Every index is in range; "clip" only spares NumPy a copy.
    return np.take(values, index, out=memory[: len(index)], mode="clip")


def _share(wins: float, pairs: float) -> float:
    return float(wins / pairs) if pairs else float("nan")
