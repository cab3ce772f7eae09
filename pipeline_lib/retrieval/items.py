"""The items of a safe index, and what a search of them needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from pipeline_lib.retrieval.cosine import Nearest
from pipeline_lib.retrieval.cosine_index import CosineIndex
from pipeline_lib.retrieval.found import NO_ITEM
from pipeline_lib.retrieval.signals import Combination, Signal, signal_of

_REFERENCES = 10_000


@dataclass(frozen=True)
class Items:
    """Images with representations: ids, int64 [n]; float32 [n, dim]; uncertainty, float64 [n]; label, int64 [n]."""

    ids: np.ndarray
    representation: np.ndarray
    uncertainty: np.ndarray
    label: np.ndarray

    @classmethod
    def none(cls, dim: int) -> Self:
        """Return no items."""
        return cls(np.empty(0, np.int64), np.empty((0, dim), np.float32), np.empty(0), np.empty(0, np.int64))

    def __getitem__(self, rows: np.ndarray) -> Items:
        """Return the items of some rows, or where a mask is true."""
        return Items(*(values[rows] for values in vars(self).values()))

    def followed_by(self, others: Items) -> Items:
        """Return these items, then others."""
        pairs = zip(vars(self).values(), vars(others).values(), strict=True)
        return Items(*(np.concatenate(pair) for pair in pairs))


class Kept:
    """The items that are not left out, as they are searched.

    Attributes
    ----------
    items : Items
        In the order of the index.
    reference, reference_label : ndarray
        The signal of the reference images, float64 [m], and the class of their nearest items, int64 [m].

    Parameters
    ----------
    kept, reference
        The items, and the images (with ids where these must not find themselves) whose signal thresholds are quantiles
        of: at most 10,000 of them, evenly spread.
    signal
        What queries are rejected by.
    factory, parameters
        Of faiss's index.
    """

    def __init__(self, kept: Items, reference: Items, signal: Signal, factory: str, parameters: str) -> None:
        self.items, self._signal = kept, signal
        self._index = CosineIndex(kept.representation, factory, parameters)
        count = len(reference.ids)
        reference = reference[np.unique(np.linspace(0, count - 1, min(count, _REFERENCES)).round().astype(np.int64))]
        nearest = self.nearest(reference.representation, 1, reference.ids)
        distance = distance_of(nearest)
        is_near = np.isfinite(distance)
        self._combination = Combination.of(distance[is_near], reference.uncertainty[is_near])
        self.reference = self.signal(distance, reference.uncertainty)
        self.reference_label = kept.label[nearest.index[:, 0]]

    def nearest(self, queries: np.ndarray, k: int, own_ids: np.ndarray | None) -> Nearest:
        """Return the k nearest items of queries, float32 [q, dim]; own_ids: what each must not find, int64 [q]."""
        own_rows = np.full(len(queries), NO_ITEM)
        if own_ids is not None:
            by_id = np.argsort(self.items.ids)
            row = by_id[np.searchsorted(self.items.ids, own_ids, sorter=by_id).clip(max=len(by_id) - 1)]
            own_rows = np.where(self.items.ids[row] == own_ids, row, NO_ITEM)
        return self._index.search(queries, k, own_rows)

    def signal(self, distance: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
        """Return what queries are rejected by, float64 [q]."""
        return signal_of(self._signal, self._combination, distance, uncertainty)


def distance_of(nearest: Nearest) -> np.ndarray:
    """Return the distance to the nearest item, float64 [q], infinite for a query without any in reach."""
    # Between equal vectors rounding can put the similarity above one.
    return np.where(nearest.index[:, 0] >= 0, np.maximum(1 - nearest.similarity[:, 0], 0), np.inf)


def share_threshold(values: np.ndarray, share: float) -> float:
    """Return the largest value that is kept when the floor(share m) largest of float [m] are left out.

    Infinite where that is none of them: then nothing is known of what would be too large.
    """
    # 0.29 * 100 is a little less than 29, which must not cost an image.
    count = math.floor(share * len(values) + 1e-9)
    if count == 0:
        return math.inf
    kept = len(values) - count
    return float(np.partition(values, kept - 1)[kept - 1])
