"""Candidates from products by torch, on a CPU or GPU, or by faiss (see `candidates`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from queue import SimpleQueue

import numpy as np
import torch

from pipeline_lib.retrieval.candidates import CandidatePairs, Pairs, error_bound
from pipeline_lib.retrieval.cosine import Rows

_TILE = 64
_PIECE_PRODUCTS = 1 << 22  # products held at a time on a CPU: 16 MB
_PIECE_PRODUCTS_GPU = 1 << 26
_MOST_TILES_PER_ROW = 8
_FAISS_HITS = 16
_TENSOR_CORES = 4


@dataclass(frozen=True)
class UnitRows:
    """Rows at length one: `exact` float32 [n, d], and `coarse`, rounded to bfloat16 but stored as float32 [n, d].

    coarse_error: the largest distance between a row of `exact` and of `coarse`.
    """

    exact: torch.Tensor
    coarse: torch.Tensor
    coarse_error: float

    @classmethod
    def of(cls, rows: Rows, device: torch.device) -> UnitRows:
        """Divide rows by their norms; zero vectors stay zero."""
        values, norm = torch.from_numpy(rows.values), rows.norm
        # Outside of this range float32 division would lose digits.
        is_extreme = (norm > 0) & ((norm < 1e-30) | (norm > 1e30))
        divisor = np.where(is_extreme | (norm == 0), 1.0, norm).astype(np.float32)
        exact = values.to(device, torch.float32) / torch.from_numpy(divisor).to(device)[:, None]
        for row in np.flatnonzero(is_extreme):
            exact[row] = (values[row].to(torch.float64) / norm[row]).to(exact)
        coarse = exact.to(torch.bfloat16).to(torch.float32)
        distance = torch.linalg.vector_norm(exact - coarse, dim=1).max()
        return cls(exact, coarse, 1.01 * float(distance))


class TorchSearch:
    """Products by torch; a product of two rows serves both.

    Pieces are searched side by side, each by one thread: threads that share every operation wait for each other at its
    end, which costs more than it gains on a machine that is busy.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        on_cpu = device.type == "cpu"
        self._piece_products = _PIECE_PRODUCTS if on_cpu else _PIECE_PRODUCTS_GPU
        workers = torch.get_num_threads() if on_cpu else 1
        self._pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
        # Kept from call to call: memory of this size, given back and asked for again, splits the heap, which grows.
        self._buffers: SimpleQueue[torch.Tensor] = SimpleQueue()
        for _ in range(workers):
            self._buffers.put(torch.empty(0, device=device))

    def start_thread(self) -> None:
        """Leave the cores to the search."""
        torch.set_num_threads(1)

    def prepare(self, rows: Rows) -> UnitRows:
        """Return the unit rows on the device."""
        return UnitRows.of(rows, self.device)

    def pairs(
        self, left: UnitRows, right: UnitRows, known_left: np.ndarray, known_right: np.ndarray
    ) -> Iterator[CandidatePairs]:
        """See `CandidateSearch`."""
        rows, columns = len(left.exact), len(right.exact)
        size = _whole_tiles(min(rows, self._piece_products // columns))
        values = size * _whole_tiles(columns)

        def search(start: int, is_coarse: bool) -> tuple[Pairs | None, Pairs | None]:
            piece = slice(start, min(start + size, rows))
            first = start if left is right else 0  # below the diagonal, a block's products with itself repeat
            buffer = self._buffers.get()
            if len(buffer) < values:
                buffer = torch.empty(values, device=self.device)
            try:
                products = _products(left, piece, right, slice(first, columns), is_coarse, buffer)
                if left is right:
                    products.diagonal().fill_(-torch.inf)
                bound = _bound(left, right, is_coarse)
                # Maxima in the order of memory: over the transposed products they would take 30 times as long.
                row_maxima = products.unflatten(1, (-1, _TILE)).amax(dim=2)
                column_maxima = products.unflatten(0, (-1, _TILE)).amax(dim=1).T
                there = _near_maximum(products, row_maxima, known_left[piece], bound, may_give_up=is_coarse)
                back = _near_maximum(products.T, column_maxima, known_right[first:], bound, may_give_up=is_coarse)
            finally:
                self._buffers.put(buffer)
            return there, back

        starts = list(range(0, rows, size))
        for is_coarse in (True, False):
            crowded = []
            with _matmul_precision("medium" if is_coarse else "highest"):
                for start, (there, back) in zip(starts, self._pool.map(search, starts, repeat(is_coarse)), strict=True):
                    first = start if left is right else 0
                    if there is None or back is None:
                        crowded.append(start)
                        continue
                    yield CandidatePairs(False, start + there[0], first + there[1])
                    yield CandidatePairs(True, first + back[0], start + back[1])
            starts = crowded


class FaissSearch(TorchSearch):
    """The best hits of faiss's flat inner-product index; all products, by torch, where these may not be enough."""

    def __init__(self, device: torch.device) -> None:
        import faiss

        super().__init__(device)
        faiss.omp_set_num_threads(torch.get_num_threads())
        self._faiss = faiss
        has_gpu = device.type == "cuda" and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
        self._gpu = faiss.StandardGpuResources() if has_gpu else None

    def pairs(
        self, left: UnitRows, right: UnitRows, known_left: np.ndarray, known_right: np.ndarray
    ) -> Iterator[CandidatePairs]:
        """See `CandidateSearch`."""
        there, is_complete = self._one_way(left, right, known_left)
        back, is_back_complete = (there, True) if left is right else self._one_way(right, left, known_right)
        if is_complete and is_back_complete:
            yield CandidatePairs(False, *there)
            if left is not right:
                yield CandidatePairs(True, *back)
        else:
            yield from super().pairs(left, right, known_left, known_right)

    def _one_way(self, queries: UnitRows, gallery: UnitRows, known: np.ndarray) -> tuple[Pairs, bool]:
        """Return the candidates among the hits, and whether no row can have others."""
        flat = self._faiss.IndexFlatIP(gallery.exact.shape[1])
        index = flat if self._gpu is None else self._faiss.index_cpu_to_gpu(self._gpu, 0, flat)
        index.add(gallery.exact.cpu().numpy())
        products, row = index.search(queries.exact.cpu().numpy(), min(_FAISS_HITS, len(gallery.exact)))
        if queries is gallery:
            products[row == np.arange(len(row))[:, None]] = -np.inf
        bound = _bound(queries, gallery, is_coarse=False)
        threshold = np.maximum(known - bound, products.max(axis=1) - 2 * bound)
        # With the last hit below the threshold nothing that was left out can be above it.
        last = np.where(products > -np.inf, products, np.inf).min(axis=1)
        is_complete = bool((last < threshold).all()) or row.shape[1] == len(gallery.exact)
        query, hit = np.nonzero((products >= threshold[:, None]) & (products > -np.inf))
        return (query, row[query, hit]), is_complete


def _bound(left: UnitRows, right: UnitRows, is_coarse: bool) -> float:
    """Return the largest error of a product (see `candidates`)."""
    delta = error_bound(np.dtype(np.float32), left.exact.shape[1])
    if not is_coarse:
        return delta
    # A GPU's tensor cores round each sum towards zero, and its terms before that, to the last digit of the largest.
    delta *= _TENSOR_CORES
    return (1 + max(left.coarse_error, right.coarse_error)) ** 2 * (1 + delta) - 1


def _whole_tiles(length: int) -> int:
    return max(1, -(-length // _TILE)) * _TILE


def _products(
    left: UnitRows, rows: slice, right: UnitRows, columns: slice, is_coarse: bool, memory: torch.Tensor
) -> torch.Tensor:
    """Return products in `memory`, float32 [n], as [rows, columns] filled up with -inf to whole tiles."""
    first, second = (left.coarse, right.coarse) if is_coarse else (left.exact, right.exact)
    first, second = first[rows], second[columns]
    shape = (_whole_tiles(len(first)), _whole_tiles(len(second)))
    products = memory[: shape[0] * shape[1]].view(shape)
    products[len(first) :] = -torch.inf
    products[:, len(second) :] = -torch.inf
    torch.mm(first, second.T, out=products[: len(first), : len(second)])
    return products


@contextlib.contextmanager
def _matmul_precision(precision: str) -> Iterator[None]:
    """Set what float32 products may be computed in.

    "medium" allows bfloat16 and TensorFloat-32, which hold the coarse rows exactly; sums are float32 in any case.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _near_maximum(
    products: torch.Tensor, largest_in_tile: torch.Tensor, known: np.ndarray, bound: float, may_give_up: bool
) -> Pairs | None:
    """Return the positions of all products that can belong to a row's nearest neighbour.

    products: float32 [q, g], both whole tiles; -inf marks what is no pair. known: float64 [q or fewer].
    largest_in_tile: float32 [q, g / tile]; only tiles that pass are looked at, so the products are read once.
    Returns None instead of very many when it may give up.
    """
    largest = largest_in_tile.amax(dim=1)
    floor = torch.full_like(largest, torch.inf)
    floor[: len(known)] = torch.from_numpy(known - bound).to(floor.device, floor.dtype)
    threshold = torch.maximum(floor, largest - 2 * bound)
    row, tile = torch.nonzero((largest_in_tile >= threshold[:, None]) & (largest_in_tile > -torch.inf), as_tuple=True)
    if may_give_up and len(row) > _MOST_TILES_PER_ROW * len(known):
        return None
    in_tile = products.unflatten(1, (-1, _TILE))[row, tile]
    pair, offset = torch.nonzero(in_tile >= threshold[row, None], as_tuple=True)
    return row[pair].cpu().numpy(), (tile[pair] * _TILE + offset).cpu().numpy()
