"""Exact cosine nearest neighbours of every row of a matrix that is read in blocks.

The similarity of rows q and g is defined in float64 on the stored values,

    s(q, g) = sum_i q_i g_i / (||q|| ||g||),    s = 0 where q or g is a zero vector,

with each row's sum taken on its own, so equal vectors have equal similarities, bit for bit. The neighbour of q is
the row other than q (by index) with the largest s; of equal ones that with the lowest index.

Computing all pairs like that would be slow. Fast products of unit rows, whose error is bounded, find the candidates
(see `candidates`); only these are computed as defined. So the result depends neither on the block size nor on the
backend, thread count or device.

A vector that occurs more than twice is searched for once: from its second occurrence on, every row has an equal
row of lower index, which all rows prefer, and all these rows share one neighbour. So thousands of copies of an image
cost nothing, instead of thousands of tied candidates each.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import xxhash

from pipeline_lib.config.evaluation import Neighbours
from pipeline_lib.core.device import choose_device
from pipeline_lib.core.errors import NotFiniteError, PipelineError
from pipeline_lib.retrieval.candidates import CandidateSearch, FaissSearch, TorchSearch, UnitRows

ReadRows = Callable[[int, int], np.ndarray]
_PIECE_VALUES = 1 << 18  # float64 values of one piece of candidates: 2 MB, which stay in the cache


@dataclass(frozen=True)
class Nearest:
    """Each row's nearest other row: `index` int64 [n] and its cosine `similarity` float64 [n]."""

    index: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True)
class _Block:
    """The rows of a block that are searched.

    values: as stored, float32 [m, d]. norm: float64 [m]. index: int64 [m], row numbers. unit: the rows at length one.
    """

    values: np.ndarray
    norm: np.ndarray
    index: np.ndarray
    unit: UnitRows


def nearest_neighbours(
    read: ReadRows, rows: int, search: Neighbours, progress: Callable[[int], None] | None = None
) -> Nearest:
    """Find each row's nearest other row by cosine similarity, exactly (see the head of this module).

    Parameters
    ----------
    read
        `read(start, stop)` returns rows [start, stop), float16 or float32 [stop - start, d].
    rows
        Number of rows n.
    search
        What computes the products (`faiss` uses its GPU index where it has one and the device allows it), where, and
        how many rows are in a block: three blocks are held in memory at a time, and O(n) numbers.
    progress
        Called with the number of rows that are done since the last call.

    Raises
    ------
    PipelineError
        For fewer than two rows.
    NotFiniteError
        For NaN or infinity, naming the row.
    """
    if rows < 2:
        raise PipelineError(f"nearest neighbours need at least 2 images, but there is {rows}")
    block_rows = search.block_rows
    norm, repeats = _scan(read, rows, block_rows)
    searched = np.ones(rows, dtype=bool)
    searched[repeats.row] = False
    backend = _backend(search)
    best = Nearest(np.full(rows, -1, dtype=np.int64), np.full(rows, -np.inf))

    def block(start: int) -> _Block:
        stop = min(start + block_rows, rows)
        index = start + np.flatnonzero(searched[start:stop])
        values = torch.from_numpy(read(start, stop)[index - start]).to(torch.float32)
        return _Block(values.numpy(), norm[index], index, UnitRows.of(values, norm[index], backend.device))

    starts = [start for start in range(0, rows, block_rows) if searched[start : start + block_rows].any()]
    # Each block meets itself, then all that come after it.
    order = [later for position in range(len(starts)) for later in starts[position:]]
    queries = None
    with contextlib.closing(_one_ahead(block, order)) as blocks:
        for start, right in zip(order, blocks, strict=True):
            queries = right if queries is None else queries
            _search_pair(backend, queries, right, best)
            if start == starts[-1]:
                if progress is not None:
                    progress(len(queries.index))
                queries = None
    if progress is not None:
        progress(len(repeats.row))
    best.index[repeats.row] = best.index[repeats.second]
    best.similarity[repeats.row] = best.similarity[repeats.second]
    return best


@dataclass(frozen=True)
class _Repeats:
    """`row`: every occurrence of a vector from its third on. `second`: the second occurrence of that vector."""

    row: np.ndarray
    second: np.ndarray


def _scan(read: ReadRows, rows: int, block_rows: int) -> tuple[np.ndarray, _Repeats]:
    """Return the norm of each row, float64 [n], and the rows that repeat a vector for the third time or later."""
    norm = np.empty(rows)
    checksum = np.empty((rows, 2), dtype=np.uint64)
    for start in range(0, rows, block_rows):
        values = np.ascontiguousarray(read(start, min(start + block_rows, rows)))
        wide = values.astype(np.float64)
        norm[start : start + len(values)] = np.sqrt((wide * wide).sum(axis=1))
        if not np.isfinite(norm[start : start + len(values)]).all():
            row = start + int(np.flatnonzero(~np.isfinite(norm[start : start + len(values)]))[0])
            raise NotFiniteError(
                f"row {row} of the representations holds NaN or infinity; check the backbone's weights and inputs", row
            )
        digests = b"".join(xxhash.xxh3_128_digest(row) for row in values)
        checksum[start : start + len(values)] = np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)
    # Equal vectors stand together, in order of index since the sort is stable.
    order = np.lexsort((checksum[:, 0], checksum[:, 1]))
    ordered = checksum[order]
    is_first = np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))
    first = np.maximum.accumulate(np.where(is_first, np.arange(rows), 0))
    third_on = np.arange(rows) - first >= 2
    return norm, _Repeats(order[third_on], order[first[third_on] + 1])


def _backend(search: Neighbours) -> CandidateSearch:
    device = choose_device(search.device)
    return FaissSearch(device) if search.backend == "faiss" else TorchSearch(device)


def _search_pair(search: CandidateSearch, left: _Block, right: _Block, best: Nearest) -> None:
    """Search a pair of blocks both ways: each row of one block is a candidate for each row of the other."""
    known_left, known_right = best.similarity[left.index], best.similarity[right.index]
    for found in search.pairs(left.unit, right.unit, known_left, known_right):
        if found.is_swapped:
            _refine(right, found.query, left, found.candidate, best)
        else:
            _refine(left, found.query, right, found.candidate, best)
        known_left[:] = best.similarity[left.index]
        known_right[:] = best.similarity[right.index]
    _hand_back_freed_memory()


def _refine(queries: _Block, query: np.ndarray, gallery: _Block, row: np.ndarray, best: Nearest) -> None:
    """Compute the similarity of candidate pairs as defined and keep those that beat what was found so far.

    query, row: int64 [p], positions in the blocks.
    """
    for piece in _pieces(len(query), max(1, _PIECE_VALUES // queries.values.shape[1])):
        left, right = query[piece], row[piece]
        products = queries.values[left].astype(np.float64)
        products *= gallery.values[right]
        norms = queries.norm[left] * gallery.norm[right]
        similarity = products.sum(axis=1) / np.where(norms > 0, norms, 1.0)
        index, neighbour = queries.index[left], gallery.index[right]
        order = np.lexsort((neighbour, -similarity, index))
        index, neighbour, similarity = index[order], neighbour[order], similarity[order]
        is_first = np.append(True, index[1:] != index[:-1])
        index, neighbour, similarity = index[is_first], neighbour[is_first], similarity[is_first]
        known = best.similarity[index]
        is_better = (similarity > known) | ((similarity == known) & (neighbour < best.index[index]))
        best.index[index[is_better]] = neighbour[is_better]
        best.similarity[index[is_better]] = similarity[is_better]


def _one_ahead(make: Callable[[int], _Block], starts: list[int]) -> Iterator[_Block]:
    """Make blocks one ahead of their use, by one thread: reading and rounding would keep the search waiting."""
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        following = pool.submit(make, starts[0])
        for start in starts[1:]:
            block, following = following.result(), pool.submit(make, start)
            yield block
            del block
        yield following.result()


def _pieces(length: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, length, size))


def _hand_back_freed_memory() -> None:
    """Give freed memory back to the system; glibc would keep it, in a heap that grows from block to block."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
