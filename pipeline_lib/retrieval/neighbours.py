"""Exact cosine nearest neighbours of every row of a matrix that is read in blocks.

The neighbour of a row is the other row (by index) of the largest similarity; of equal ones that with the lowest index
(see `cosine`). Computing all pairs as defined would be slow. Fast products of unit rows, whose error is bounded, find
the candidates (see `candidates`); only these are computed as defined. So the result depends neither on the block size
nor on the backend, thread count or device.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.retrieval.candidates import CandidateSearch
from pipeline_lib.retrieval.cosine import Gallery, Nearest, ReadRows, Rows, similarities


def nearest_others(
    read: ReadRows,
    rows: int,
    search: CandidateSearch,
    block_rows: int,
    progress: Callable[[int], None] | None = None,
) -> Nearest:
    """Find each row's nearest other row by cosine similarity, exactly.

    Parameters
    ----------
    read
        `read(start, stop)` returns rows [start, stop), numbers [stop - start, d].
    rows
        Number of rows n.
    search
        What proposes candidates.
    block_rows
        Rows per block.
    progress
        Called with the number of rows that are done since the last call.

    Returns
    -------
    Nearest
        Its arrays are [n].

    Raises
    ------
    PipelineError
        For fewer than two rows.
    NotFiniteError
        For NaN or infinity, naming the row.
    """
    if rows < 2:
        raise PipelineError(f"nearest neighbours need at least 2 images, but there is {rows}")
    advance = progress or (lambda done: None)
    gallery = Gallery(read, rows, block_rows)
    best = Nearest.none(rows, 1)

    def block(start: int) -> _Block:
        some = gallery.block(start)
        return _Block(some, search.prepare(some))

    starts = gallery.searched_starts
    # Each block meets itself, then all that come after it.
    order = [later for position in range(len(starts)) for later in starts[position:]]
    queries = None
    with contextlib.closing(_one_ahead(block, order, search)) as blocks:
        for start, right in zip(order, blocks, strict=True):
            queries = right if queries is None else queries
            _search_pair(search, queries, right, best)
            if start == starts[-1]:
                advance(len(queries.rows.index))
                queries = None
    best.index[gallery.repeats] = best.index[gallery.twins]
    best.similarity[gallery.repeats] = best.similarity[gallery.twins]
    advance(len(gallery.repeats))
    return Nearest(best.index[:, 0], best.similarity[:, 0])


class _Block(NamedTuple):
    """Rows of a block that are searched, and the same as the backend has them."""

    rows: Rows
    prepared: Any


def _search_pair(search: CandidateSearch, left: _Block, right: _Block, best: Nearest) -> None:
    """Search a pair of blocks both ways: each row of one block is a candidate for each row of the other."""
    known_left, known_right = best.similarity[left.rows.index, 0], best.similarity[right.rows.index, 0]
    for found in search.pairs(left.prepared, right.prepared, known_left, known_right):
        queries, gallery = (right.rows, left.rows) if found.is_swapped else (left.rows, right.rows)
        similarity = similarities(queries, found.query, gallery, found.candidate)
        best.add(queries.index[found.query], gallery.index[found.candidate], similarity)
        known_left[:] = best.similarity[left.rows.index, 0]
        known_right[:] = best.similarity[right.rows.index, 0]
    _hand_back_freed_memory()


def _one_ahead(
    make: Callable[[int], _Block], starts: list[int], search: CandidateSearch
) -> Generator[_Block, None, None]:
    """Make blocks one ahead of their use, by one thread: reading and rounding would keep the search waiting."""
    with ThreadPoolExecutor(1, initializer=search.start_thread) as pool:
        following = pool.submit(make, starts[0])
        for start in starts[1:]:
            block, following = following.result(), pool.submit(make, start)
            yield block
            del block
        yield following.result()


def _hand_back_freed_memory() -> None:
    """Give freed memory back to the system; glibc would keep it, in a heap that grows from block to block."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
