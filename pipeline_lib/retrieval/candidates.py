"""Candidates for the nearest row, from fast products of unit rows whose error is known.

A search takes two blocks of rows and yields every pair that can be a row's nearest neighbour, given `known`, the
largest similarity found for each row so far (float64 [n], updated by the caller between two yields).

Two bounds on |product - similarity| are used, with u the unit roundoff of the products' type and d the length of a
row:

- products of unit rows: delta = (d + 8) u / (1 - (d + 8) u), namely d u / (1 - d u) for a sum of d products in any
  order (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), 4 u for two unit rows, and the rest for
  the rounding of thresholds and for subnormal numbers;
- products of rows rounded to bfloat16: (1 + e)^2 (1 + delta) - 1, by the Cauchy-Schwarz inequality, with e the largest
  distance between a unit row and its rounded copy. Fast bfloat16 hardware is used where there is any; the rounded
  rows are exact in every format, so the bound holds wherever the product runs.

So a candidate that is more than a bound below `known`, or more than twice the bound below the largest product of its
row, is not the nearest neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pipeline_lib.retrieval.cosine import Rows, unit_products

Pairs = tuple[np.ndarray, np.ndarray]
_MOST_PER_ROW = 8


@dataclass(frozen=True)
class CandidatePairs:
    """Pairs of a query and a candidate, positions int64 [p]; `is_swapped`: the query is in the right block."""

    is_swapped: bool
    query: np.ndarray
    candidate: np.ndarray


class CandidateSearch(Protocol):
    """What a backend does."""

    def start_thread(self) -> None:
        """Set up a thread that prepares blocks beside the search."""

    def prepare(self, rows: Rows) -> Any:
        """Return a block as `pairs` takes it."""

    def pairs(self, left: Any, right: Any, known_left: np.ndarray, known_right: np.ndarray) -> Iterator[CandidatePairs]:
        """Yield candidates among `right` for the rows of `left`, and among `left` for the rows of `right`.

        Where both are the same object, no row is its own candidate.
        """


class NumpySearch:
    """Products by NumPy in float32; where these leave very many candidates, in float64. Needs no torch."""

    def start_thread(self) -> None:
        """See `CandidateSearch`."""

    def prepare(self, rows: Rows) -> Rows:
        """See `CandidateSearch`."""
        return rows

    def pairs(
        self, left: Rows, right: Rows, known_left: np.ndarray, known_right: np.ndarray
    ) -> Iterator[CandidatePairs]:
        """See `CandidateSearch`."""
        for dtype in (np.float32, np.float64):
            products = unit_products(left, right, dtype)
            # Twice: the similarity itself is rounded, too, which counts beside products in float64.
            bound = 2 * error_bound(products.dtype, left.values.shape[1])
            there = _near_largest(products, known_left, bound)
            if len(there[0]) <= _MOST_PER_ROW * len(products):
                break
        yield CandidatePairs(False, *there)
        if left is not right:
            yield CandidatePairs(True, *_near_largest(products.T, known_right, bound))


def error_bound(dtype: np.dtype, dim: int) -> float:
    """Return the largest error of a product of unit rows (see the head of this module)."""
    rounding = (dim + 8) * float(np.finfo(dtype).eps) / 2
    return rounding / (1 - rounding)


def _near_largest(products: np.ndarray, known: np.ndarray, bound: float) -> Pairs:
    """Return the positions of all products [q, g] that can belong to a row's nearest; -inf marks what is no pair."""
    threshold = np.maximum(known - bound, products.max(axis=1).astype(np.float64) - 2 * bound)
    query, candidate = np.nonzero((products >= threshold.astype(products.dtype)[:, None]) & (products > -np.inf))
    return query, candidate
