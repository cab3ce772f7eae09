"""Exact nearest neighbours while more and more of the database is removed. Needs no torch.

The similarity is that of `cosine`, computed as a float64 product of rows at length one, whose error is below
(d + 8) 2^-53; so similarities closer than 1e-12 count as equal, and of equal ones the lowest row wins. A query is never
its own neighbour.

Each query's largest similarities are found once, whatever is removed: O(n^2 d) time, in blocks, and O(n) memory. Which
of these rows is the nearest that is kept is then a matter of looking them up, for every way of removing. The answer is
certain when the row found is nearer than the last row of the list; queries for which it isn't (everything near them is
removed, or hundreds of copies are equally near) get a longer list, in the end one with all rows.
"""

from __future__ import annotations

import numpy as np

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.retrieval.cosine import Gallery, ReadRows, unit_products

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

    Parameters
    ----------
    read
        `read(start, stop)` returns rows [start, stop), numbers [stop - start, d].
    neighbour
        The nearest row when nothing is removed, int64 [n]; it is the answer wherever it is kept.
    removed_at
        The first level at which a row is removed, int [m, n]; `levels` for rows that are always kept.
    length
        How many candidates a query has at first; it doesn't change the result.
    block_rows
        Rows per block; it doesn't change the result.

    Raises
    ------
    PipelineError
        When less than two rows are kept: one of them would be without a neighbour.
    """
    rows = len(neighbour)
    kept = int((removed_at == levels).sum(axis=1).min())
    if kept < 2:
        raise PipelineError(
            f"of {rows} images {kept} are left in the database, but a neighbour needs at least 2; "
            "remove a smaller share"
        )
    gallery = Gallery(read, rows, block_rows)
    lost_at = removed_at[:, neighbour]
    nearest = np.tile(neighbour.astype(np.int64), (len(removed_at), levels, 1))
    pending = np.flatnonzero((lost_at < levels).any(axis=0))
    length = min(length, rows)
    while len(pending):
        is_open = np.zeros(rows, dtype=bool)
        at_a_time = max(1, min(block_rows, _LISTED // length))
        for start in range(0, len(pending), at_a_time):
            queries = pending[start : start + at_a_time]
            similarity, candidates = _lists(gallery, queries, length)
            for removal, level in enumerate(removed_at):
                lost, candidate_level = lost_at[removal, queries], level[candidates]
                for here in range(int(lost.min()), levels):
                    is_lost = lost <= here
                    found, is_certain = _nearest(
                        similarity[is_lost], candidates[is_lost], candidate_level[is_lost] > here
                    )
                    nearest[removal, here, queries[is_lost]] = found
                    is_open[queries[is_lost][~is_certain]] = True
        pending = np.flatnonzero(is_open)
        length = min(_LONGER * length, rows)
    return nearest


def _nearest(similarity: np.ndarray, index: np.ndarray, is_kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest kept candidate of each query, and whether no row outside of the list can be as near.

    similarity: float64 [q, k]. index: of the candidates, int64 [q, k]. is_kept: bool [q, k].
    """
    threshold = np.where(is_kept, similarity, -np.inf).max(axis=1) - _TIE
    is_nearest = is_kept & (similarity >= threshold[:, None])
    return (
        np.where(is_nearest, index, np.iinfo(np.int64).max).min(axis=1),
        threshold > similarity.min(axis=1),
    )


def _lists(gallery: Gallery, queries: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `length` largest similarities of each query, float64 [q, length], and their rows, int64; in no order.

    queries: rows, ascending, int64 [q]. A query with itself has the similarity -inf.
    """
    asked = gallery.gather(queries)
    similarity, index = np.empty((len(queries), 0)), np.empty((len(queries), 0), dtype=np.int64)
    for start in gallery.starts:
        block = gallery.block(start, with_repeats=True)
        products = unit_products(asked, block, np.float64)
        similarity = np.concatenate([similarity, products], axis=1)
        index = np.concatenate([index, np.broadcast_to(block.index, products.shape)], axis=1)
        if similarity.shape[1] > length:
            largest = np.argpartition(similarity, similarity.shape[1] - length, axis=1)[:, -length:]
            similarity = np.take_along_axis(similarity, largest, axis=1)
            index = np.take_along_axis(index, largest, axis=1)
    return similarity, index
