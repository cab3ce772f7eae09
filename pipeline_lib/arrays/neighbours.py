"""Exact cosine nearest neighbours without torch, by blocked float32 products and a float64 check of what is close.

The similarity of rows q and g is defined in float64 on the given values, s(q, g) = sum_i q_i g_i / (||q|| ||g||), and
0 where either is a zero vector. The neighbour of q is the row other than q (by index) with the largest s; of equal
ones that with the lowest index. This is what `retrieval.neighbours` computes.

A float32 product of unit rows differs from s by at most gamma = (d + 8) u / (1 - (d + 8) u), u = 2^-24 (Higham,
Accuracy and Stability of Numerical Algorithms, section 3.1); delta = 2 gamma covers the rounding of s and of thresholds
too. So only pairs within 2 delta of the largest product of their row can be the nearest; these are computed as
defined. Where they are very many, products in float64, whose delta is 2^29 times smaller, sort them out first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xxhash

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.progress import Progress

_QUERY_ROWS = 2048
_GALLERY_ROWS = 8192
_BLOCK_VALUES = 1 << 23  # of a block of features: 64 MB in float64
_PIECE_VALUES = 1 << 18  # of a piece of pairs that are checked: 2 MB, which stay in the cache
_MOST_PER_ROW = 8


@dataclass(frozen=True)
class _Block:
    """Rows that are compared. index: row numbers, int64 [m]. values: float64 [m, d]. norm: float64 [m]."""

    index: np.ndarray
    values: np.ndarray
    norm: np.ndarray

    def unit(self, dtype: type) -> np.ndarray:
        """Return the rows at length one, [m, d]; zero vectors stay zero."""
        return (self.values / np.where(self.norm > 0, self.norm, 1.0)[:, None]).astype(dtype)


def nearest_neighbours(features: np.ndarray, source: str) -> np.ndarray:
    """Return each row's nearest other row by cosine similarity, int64 [n] (see the head of this module).

    features: numbers [n, d], read in blocks, so that a memory-mapped array may be larger than memory.
    source: where they come from, for messages and for the progress on stderr.
    Raises `PipelineError` for fewer than two rows, and for NaN or infinity, naming the row.
    """
    if len(features) < 2:
        raise PipelineError(f"{source}: has {len(features)} row; nearest neighbours need at least 2")
    norm, repeated, second = _scan(features, source)
    # From its third occurrence on, a vector is not searched for: all rows prefer the first two, and it shares the
    # neighbour of the second.
    searched = np.setdiff1d(np.arange(len(features)), repeated)
    neighbour = np.full(len(features), -1, dtype=np.int64)
    best = np.full(len(features), -np.inf)

    def block(rows: np.ndarray) -> _Block:
        return _Block(rows, _float64_rows(features, rows), norm[rows])

    size = _block_rows(features.shape[1], _GALLERY_ROWS)
    with Progress(len(features), "queries", f"nearest neighbours of {source}") as progress:
        for start in range(0, len(searched), min(size, _QUERY_ROWS)):
            queries = block(searched[start : start + min(size, _QUERY_ROWS)])
            unit = queries.unit(np.float32)
            for gallery_start in range(0, len(searched), size):
                gallery = block(searched[gallery_start : gallery_start + size])
                _search(queries, unit, gallery, neighbour, best)
            progress.advance(len(queries.index))
        progress.advance(len(repeated))
    neighbour[repeated] = neighbour[second]
    return neighbour


def _scan(features: np.ndarray, source: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each row's norm, float64 [n]; the rows that repeat a vector for the third time or later; and the second
    occurrence of the vector of each of these, int64 [r]."""
    rows, size = len(features), _block_rows(features.shape[1], _GALLERY_ROWS)
    norm = np.empty(rows)
    checksum = np.empty((rows, 2), dtype=np.uint64)
    for start in range(0, rows, size):
        values = _float64_rows(features, slice(start, start + size))
        with np.errstate(over="ignore"):
            norm[start : start + len(values)] = np.sqrt((values * values).sum(axis=1))
        if not (is_finite := np.isfinite(norm[start : start + len(values)])).all():
            raise PipelineError(
                f"{source}: row {start + int(np.flatnonzero(~is_finite)[0])} holds NaN, infinity or values too large "
                "to square; check the model that made it"
            )
        digests = b"".join(xxhash.xxh3_128_digest(row) for row in values)
        checksum[start : start + len(values)] = np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)
    order = np.lexsort((checksum[:, 0], checksum[:, 1]))  # stable: equal vectors stand together, by index
    ordered = checksum[order]
    is_first = np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))
    first = np.maximum.accumulate(np.where(is_first, np.arange(rows), 0))
    third_on = np.arange(rows) - first >= 2
    return norm, order[third_on], order[first[third_on] + 1]


def _float64_rows(features: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
    """Return rows, each in one piece: Fortran order must not change what is hashed or the rounding of a sum."""
    return features[rows].astype(np.float64, order="C")


def _block_rows(dimension: int, most: int) -> int:
    return max(1, min(most, _BLOCK_VALUES // dimension))


def _search(queries: _Block, unit: np.ndarray, gallery: _Block, neighbour: np.ndarray, best: np.ndarray) -> None:
    """Take from the gallery what is nearer to a query than what was found so far. unit: float32 [q, d]."""
    query, row = _candidates(queries, unit, gallery, best[queries.index])
    if len(query) > _MOST_PER_ROW * len(unit):
        query, row = _candidates(queries, queries.unit(np.float64), gallery, best[queries.index])
    size = max(1, _PIECE_VALUES // unit.shape[1])
    for start in range(0, len(query), size):
        _check(queries, query[start : start + size], gallery, row[start : start + size], neighbour, best)


def _candidates(queries: _Block, unit: np.ndarray, gallery: _Block, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs that can be a query's nearest neighbour: positions in both blocks, int64 [p].

    unit: the queries in the type that the products are computed in. known: best similarity so far, float64 [q].
    """
    rounding = (unit.shape[1] + 8) * float(np.finfo(unit.dtype).eps) / 2
    bound = 2 * rounding / (1 - rounding)
    products = unit @ gallery.unit(unit.dtype.type).T
    _, own_query, own_row = np.intersect1d(queries.index, gallery.index, assume_unique=True, return_indices=True)
    products[own_query, own_row] = -np.inf
    largest = products.max(axis=1)
    threshold = np.maximum(known - bound, largest.astype(np.float64) - 2 * bound).astype(unit.dtype)
    open_rows = np.flatnonzero((largest >= threshold) & (largest > -np.inf))
    query, row = [], []
    for start in range(0, len(open_rows), 256):
        some = open_rows[start : start + 256]
        found, column = np.nonzero(products[some] >= threshold[some, None])
        query.append(some[found])
        row.append(column)
    if not query:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    return np.concatenate(query), np.concatenate(row)


def _check(
    queries: _Block, query: np.ndarray, gallery: _Block, row: np.ndarray, neighbour: np.ndarray, best: np.ndarray
) -> None:
    """Compute the similarity of pairs as defined and keep those that beat what was found so far."""
    norms = queries.norm[query] * gallery.norm[row]
    similarity = (queries.values[query] * gallery.values[row]).sum(axis=1) / np.where(norms > 0, norms, 1.0)
    index, found = queries.index[query], gallery.index[row]
    order = np.lexsort((found, -similarity, index))
    order = order[np.append(True, index[order][1:] != index[order][:-1])]  # the best of each query
    index, found, similarity = index[order], found[order], similarity[order]
    is_better = (similarity > best[index]) | ((similarity == best[index]) & (found < neighbour[index]))
    best[index[is_better]] = similarity[is_better]
    neighbour[index[is_better]] = found[is_better]
