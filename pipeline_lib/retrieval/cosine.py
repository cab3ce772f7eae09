"""The similarity that every search here computes, and the rows that it is computed of.

The similarity of rows q and g is defined in float64 on the stored values,

    s(q, g) = sum_i q_i g_i / (||q|| ||g||),    s = 0 where q or g is a zero vector,

with each row's sum taken on its own, so equal vectors have equal similarities, bit for bit. Of equal similarities the
one with the row of the lowest index comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import xxhash

from pipeline_lib.core.errors import NotFiniteError

ReadRows = Callable[[int, int], np.ndarray]
_PIECE_VALUES = 1 << 18  # float64 values of one piece of pairs: 2 MB, which stay in the cache


@dataclass(frozen=True)
class Rows:
    """Some rows. values: float32 or float64 [m, d]. norm: float64 [m]. index: which rows they are, int64 [m]."""

    values: np.ndarray
    norm: np.ndarray
    index: np.ndarray

    def unit(self, dtype: type) -> np.ndarray:
        """Return the rows at length one, [m, d]; zero vectors stay zero."""
        return (self.values / np.where(self.norm > 0, self.norm, 1.0)[:, None]).astype(dtype, copy=False)

    @classmethod
    def of(cls, values: np.ndarray, index: np.ndarray) -> Self:
        """Return rows with their norms. values: numbers [m, d]."""
        return cls(_floats(values), norms(values), index)


def norms(values: np.ndarray) -> np.ndarray:
    """Return the Euclidean norm of each row, float64 [m]. values: numbers [m, d]."""
    wide = values.astype(np.float64, order="C")
    with np.errstate(over="ignore"):
        return np.sqrt((wide * wide).sum(axis=1))


def unit_products(left: Rows, right: Rows, dtype: type) -> np.ndarray:
    """Return the products of unit rows, [m, n]: the similarities but for rounding, and -inf for a row with itself."""
    products = left.unit(dtype) @ right.unit(dtype).T
    _, own_left, own_right = np.intersect1d(left.index, right.index, assume_unique=True, return_indices=True)
    products[own_left, own_right] = -np.inf
    return products


def similarities(left: Rows, left_row: np.ndarray, right: Rows, right_row: np.ndarray) -> np.ndarray:
    """Return the similarities of pairs of rows as defined, float64 [p]. left_row, right_row: positions, int64 [p]."""
    similarity = np.empty(len(left_row))
    size = max(1, _PIECE_VALUES // left.values.shape[1])
    for start in range(0, len(similarity), size):
        first, second = left_row[start : start + size], right_row[start : start + size]
        products = left.values[first].astype(np.float64)
        products *= right.values[second]
        both_norms = left.norm[first] * right.norm[second]
        similarity[start : start + size] = products.sum(axis=1) / np.where(both_norms > 0, both_norms, 1.0)
    return similarity


@dataclass(frozen=True)
class Nearest:
    """The k nearest rows of each query that were found so far, nearest first.

    index: int64 [n, k], -1 where there are fewer. similarity: float64 [n, k], -inf there.
    """

    index: np.ndarray
    similarity: np.ndarray

    @classmethod
    def none(cls, queries: int, k: int) -> Self:
        """Return the lists before anything was found."""
        return cls(np.full((queries, k), -1), np.full((queries, k), -np.inf))

    def add(self, query: np.ndarray, index: np.ndarray, similarity: np.ndarray) -> None:
        """Keep of these pairs, and of those that were kept, the k nearest of each query; no pair may come twice.

        query: positions in the lists, int64 [p]. index: of the rows, int64 [p]. similarity: float64 [p].
        """
        k = self.index.shape[1]
        touched = np.unique(query)
        query = np.append(np.repeat(touched, k), query)
        index = np.append(self.index[touched], index)
        similarity = np.append(self.similarity[touched], similarity)
        order = np.lexsort((index, -similarity, query))
        kept = order[np.searchsorted(query[order], touched)[:, None] + np.arange(k)]
        self.index[touched], self.similarity[touched] = index[kept], similarity[kept]


class Gallery:
    """All rows, which are read in blocks: their norms, and which of them repeat a vector.

    A vector that occurs more than twice is searched for once: from its second occurrence on, every row has an equal
    row of lower index, which all rows prefer, and all these rows share one neighbour. So thousands of copies of an
    image cost nothing, instead of thousands of tied candidates each.

    Parameters
    ----------
    read
        `read(start, stop)` returns rows [start, stop), numbers [stop - start, d].
    rows
        Number of rows n.
    block_rows
        Rows per block.

    Attributes
    ----------
    starts
        Where the blocks begin; `searched_starts`: of those that hold more than repeats.
    repeats, twins
        The rows that repeat a vector for the third time or later, and the second occurrence of the vector of each.

    Raises
    ------
    NotFiniteError
        For NaN or infinity, or values too large to square, naming the row.
    """

    def __init__(self, read: ReadRows, rows: int, block_rows: int) -> None:
        self._read, self._block_rows = read, block_rows
        self._norm = np.empty(rows)
        self.starts = range(0, rows, block_rows)
        checksum = np.empty((rows, 2), dtype=np.uint64)
        for start in self.starts:
            values = np.ascontiguousarray(read(start, min(start + block_rows, rows)))
            block = slice(start, start + len(values))
            self._norm[block] = norms(values)
            if not (is_finite := np.isfinite(self._norm[block])).all():
                row = start + int(np.argmin(is_finite))
                raise NotFiniteError(
                    f"row {row} of the representations holds NaN, infinity or values too large to square; check the "
                    "backbone's weights and inputs",
                    row,
                )
            digests = b"".join(xxhash.xxh3_128_digest(row) for row in values)
            checksum[block] = np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)
        # Equal vectors stand together, in order of index since the sort is stable.
        order = np.lexsort((checksum[:, 0], checksum[:, 1]))
        ordered = checksum[order]
        is_first = np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))
        first = np.maximum.accumulate(np.where(is_first, np.arange(rows), 0))
        third_on = np.flatnonzero(np.arange(rows) - first >= 2)
        self.repeats, self.twins = order[third_on], order[first[third_on] + 1]
        self._is_repeat = np.zeros(rows, dtype=bool)
        self._is_repeat[self.repeats] = True
        self.searched_starts = [start for start in self.starts if not self._is_repeat[start : start + block_rows].all()]

    def block(self, start: int, with_repeats: bool = False) -> Rows:
        """Return the rows of the block that begins at `start`, those that are searched for or all."""
        stop = min(start + self._block_rows, len(self._norm))
        return self._rows(start, np.arange(start, stop)[with_repeats | ~self._is_repeat[start:stop]])

    def gather(self, index: np.ndarray) -> Rows:
        """Return any rows. index: ascending, int64 [m]."""
        blocks = np.split(index, np.flatnonzero(np.diff(index // self._block_rows)) + 1)
        parts = [self._rows(int(rows[0]) // self._block_rows * self._block_rows, rows) for rows in blocks]
        return Rows(np.concatenate([part.values for part in parts]), self._norm[index], index)

    def _rows(self, start: int, index: np.ndarray) -> Rows:
        values = self._read(start, min(start + self._block_rows, len(self._norm)))
        return Rows(_floats(values[index - start]), self._norm[index], index)


def _floats(values: np.ndarray) -> np.ndarray:
    """Return float32, or float64 where values need it; each row in one piece, so that sums are rounded alike."""
    return np.ascontiguousarray(values, np.promote_types(values.dtype, np.float32))
