"""Exact nearest neighbours while more and more of the database is removed. numpy alone, no torch.

The similarity is that of `neighbours`: the cosine, 0 for a zero vector. It is computed as a float64 product of rows
at length one, whose error is below (d + 8) 2^-53, so similarities closer than 1e-12 count as equal, and of equal ones
the lowest row wins. A query is never its own neighbour.

Each query's largest products are found once, whatever is removed: O(n^2 d) time, in blocks, and O(n) memory. Which of
these rows is the nearest that is kept is then a matter of looking them up, for every way of removing. The answer is
certain when the row found is nearer than the last row of the list; queries for which it isn't (everything near them is
removed, or hundreds of copies are equally near) get a longer list, in the end one with all rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline_lib.core.errors import PipelineError

ReadRows = Callable[[int, int], np.ndarray]
_TIE = 1e-12
_LENGTH = 64
_LONGER = 8
_LISTED = 1 << 22  # candidates held at a time: 64 MB
_BLOCK_ROWS = 2048


def nearest_kept(
    read: ReadRows,
    neighbour: np.ndarray,
    removed_at: np.ndarray,
    levels: int,
    length: int = _LENGTH,
    block_rows: int = _BLOCK_ROWS,
) -> np.ndarray:
    """Return each row's nearest kept row at each level of each removal, int64 [m, levels, n].

    read: `read(start, stop)` returns rows [start, stop), float16 or float32 [stop - start, d].
    neighbour: the nearest row when nothing is removed, int64 [n]; it is the answer wherever it is kept.
    removed_at: the first level at which a row is removed, int [m, n]; `levels` for rows that are always kept.
    length: how many candidates a query has at first. block_rows: rows per block. Neither changes the result.

    Raises `PipelineError` when less than two rows are kept: one of them would be without a neighbour.
    """
    rows = len(neighbour)
    kept = int((removed_at == levels).sum(axis=1).min())
    if kept < 2:
        raise PipelineError(
            f"of {rows} images {kept} are left in the database, but a neighbour needs at least 2; "
            "remove a smaller share"
        )
    lost_at = removed_at[:, neighbour]
    nearest = np.tile(neighbour.astype(np.int64), (len(removed_at), levels, 1))
    pending = np.flatnonzero((lost_at < levels).any(axis=0))
    length = min(length, rows)
    while len(pending):
        is_open = np.zeros(rows, dtype=bool)
        at_a_time = max(1, min(block_rows, _LISTED // length))
        for start in range(0, len(pending), at_a_time):
            queries = pending[start : start + at_a_time]
            products, candidates = _largest_products(read, rows, queries, length, block_rows)
            for removal, level in enumerate(removed_at):
                lost, candidate_level = lost_at[removal, queries], level[candidates]
                for here in range(int(lost.min()), levels):
                    is_lost = lost <= here
                    found, is_certain = _nearest(
                        products[is_lost], candidates[is_lost], candidate_level[is_lost] > here
                    )
                    nearest[removal, here, queries[is_lost]] = found
                    is_open[queries[is_lost][~is_certain]] = True
        pending = np.flatnonzero(is_open)
        length = min(_LONGER * length, rows)
    return nearest


def _nearest(products: np.ndarray, candidates: np.ndarray, is_kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest kept candidate of each query, and whether no row outside of the list can be as near.

    products: float64 [q, k]. candidates: rows, int64 [q, k]. is_kept: bool [q, k].
    """
    threshold = np.where(is_kept, products, -np.inf).max(axis=1) - _TIE
    is_nearest = is_kept & (products >= threshold[:, None])
    return (
        np.where(is_nearest, candidates, np.iinfo(np.int64).max).min(axis=1),
        threshold > products.min(axis=1),
    )


def _largest_products(
    read: ReadRows, rows: int, queries: np.ndarray, length: int, block_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the `length` largest products of each query, float64 [q, length], and their rows, int64; in no order.

    queries: row numbers in ascending order, int64 [q]. A query with itself has the product -inf.
    """
    unit = _gather(read, rows, queries, block_rows)
    products = np.empty((len(queries), 0))
    candidates = np.empty((len(queries), 0), dtype=np.int64)
    for start in range(0, rows, block_rows):
        stop = min(start + block_rows, rows)
        block = unit @ _at_length_one(read(start, stop)).T
        is_inside = (queries >= start) & (queries < stop)
        block[is_inside, queries[is_inside] - start] = -np.inf
        products = np.concatenate([products, block], axis=1)
        candidates = np.concatenate([candidates, np.broadcast_to(np.arange(start, stop), block.shape)], axis=1)
        if products.shape[1] > length:
            largest = np.argpartition(products, products.shape[1] - length, axis=1)[:, -length:]
            products = np.take_along_axis(products, largest, axis=1)
            candidates = np.take_along_axis(candidates, largest, axis=1)
    return products, candidates


def _gather(read: ReadRows, rows: int, index: np.ndarray, block_rows: int) -> np.ndarray:
    """Return rows at length one, float64 [m, d]. index: row numbers in ascending order, int64 [m]."""
    pieces = []
    for start in np.unique(index // block_rows) * block_rows:
        stop = min(int(start) + block_rows, rows)
        inside = index[(index >= start) & (index < stop)]
        pieces.append(_at_length_one(read(int(start), stop)[inside - start]))
    return np.concatenate(pieces)


def _at_length_one(values: np.ndarray) -> np.ndarray:
    """Return rows divided by their norms, float64; zero vectors stay zero."""
    wide = values.astype(np.float64)
    norm = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    return wide / np.where(norm > 0, norm, 1.0)
