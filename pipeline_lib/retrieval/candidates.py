"""Candidates for the nearest neighbour, from float32 products of unit rows.

A search yields, for two blocks of unit rows, every pair that can be a nearest neighbour given `bound`, the largest
error of a product, and `known`, the largest similarity found for each row so far (float64, updated by the caller
between two yields). Pairs come as two arrays of positions, int64 [p].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch

Pairs = tuple[np.ndarray, np.ndarray]
DirectedPairs = tuple[bool, np.ndarray, np.ndarray]
_PIECE_PRODUCTS = 1 << 22  # products held at a time on a CPU: 16 MB
_PIECE_PRODUCTS_GPU = 1 << 26
_TILE = 64
_FAISS_HITS = 16


class CandidateSearch(Protocol):
    """What a backend does."""

    device: torch.device

    def within(self, unit: torch.Tensor, known: np.ndarray, bound: float) -> Iterator[Pairs]:
        """Yield pairs (query, candidate) of one block; no row is its own candidate."""

    def between(
        self, left: torch.Tensor, right: torch.Tensor, known_left: np.ndarray, known_right: np.ndarray, bound: float
    ) -> Iterator[DirectedPairs]:
        """Yield (False, query in left, candidate in right) and (True, query in right, candidate in left)."""


class TorchSearch:
    """Products by torch; a product between two blocks serves both directions."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._piece_products = _PIECE_PRODUCTS if device.type == "cpu" else _PIECE_PRODUCTS_GPU

    def within(self, unit: torch.Tensor, known: np.ndarray, bound: float) -> Iterator[Pairs]:
        """See `CandidateSearch.within`."""
        for start, products in self._products(unit, unit):
            products.diagonal(start).fill_(-torch.inf)
            query, row = _near_maximum(products, known[start : start + len(products)], bound)
            yield start + query, row

    def between(
        self, left: torch.Tensor, right: torch.Tensor, known_left: np.ndarray, known_right: np.ndarray, bound: float
    ) -> Iterator[DirectedPairs]:
        """See `CandidateSearch.between`."""
        for start, products in self._products(left, right):
            query, row = _near_maximum(products, known_left[start : start + len(products)], bound)
            yield False, start + query, row
            query, row = _near_maximum(products.T, known_right, bound)
            yield True, query, start + row

    def towards(self, queries: torch.Tensor, gallery: torch.Tensor, known: np.ndarray, bound: float) -> Iterator[Pairs]:
        """Yield pairs (query, candidate in gallery), one direction only."""
        for start, products in self._products(queries, gallery):
            query, row = _near_maximum(products, known[start : start + len(products)], bound)
            yield start + query, row

    def _products(self, left: torch.Tensor, right: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the products of pieces of `left` with `right`, [q, g] filled up with -inf to whole tiles.

        They are true float32: TensorFloat-32 has 10 bits only. The next piece overwrites the memory of the last.
        """
        size = _whole_tiles(min(len(left), self._piece_products // len(right)))
        products = torch.full((size, _whole_tiles(len(right))), -torch.inf, device=self.device)
        for start in range(0, len(left), size):
            piece = left[start : start + size]
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
            try:
                torch.mm(piece, right.T, out=products[: len(piece), : len(right)])
            finally:
                torch.set_float32_matmul_precision(before)
            products[len(piece) :] = -torch.inf
            yield start, products


class FaissSearch:
    """The best hits of faiss's flat inner-product index; the products of torch where these may not be all."""

    def __init__(self, device: torch.device) -> None:
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        self.device = device
        self._faiss = faiss
        self._torch = TorchSearch(device)
        has_gpu = device.type == "cuda" and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
        self._gpu = faiss.StandardGpuResources() if has_gpu else None

    def within(self, unit: torch.Tensor, known: np.ndarray, bound: float) -> Iterator[Pairs]:
        """See `CandidateSearch.within`."""
        products, row = self._hits(unit, unit)
        is_self = row == np.arange(len(unit))[:, None]
        products[is_self] = -np.inf
        query, row, is_complete = _near_best_hit(products, row, len(unit), known, bound)
        yield query, row
        if not is_complete.all():
            # All rows again, since a row's product with itself would pass for its largest; only one block in n is
            # searched within.
            yield from self._torch.within(unit, known, bound)

    def between(
        self, left: torch.Tensor, right: torch.Tensor, known_left: np.ndarray, known_right: np.ndarray, bound: float
    ) -> Iterator[DirectedPairs]:
        """See `CandidateSearch.between`."""
        for is_swapped, queries, gallery, known in ((False, left, right, known_left), (True, right, left, known_right)):
            query, row, is_complete = _near_best_hit(*self._hits(queries, gallery), len(gallery), known, bound)
            yield is_swapped, query, row
            open_queries = np.flatnonzero(~is_complete)
            if len(open_queries):
                rest = queries[torch.from_numpy(open_queries).to(queries.device)]
                for query, row in self._torch.towards(rest, gallery, known[open_queries], bound):
                    yield is_swapped, open_queries[query], row

    def _hits(self, queries: torch.Tensor, gallery: torch.Tensor) -> Pairs:
        """Return the largest products float32 [q, k], in descending order, and their rows int64 [q, k]."""
        index = self._faiss.IndexFlatIP(gallery.shape[1])
        if self._gpu is not None:
            index = self._faiss.index_cpu_to_gpu(self._gpu, 0, index)
        index.add(gallery.cpu().numpy())
        return index.search(queries.cpu().numpy(), min(_FAISS_HITS, len(gallery)))


def _whole_tiles(length: int) -> int:
    return max(1, -(-length // _TILE)) * _TILE


def _near_maximum(products: torch.Tensor, known: np.ndarray, bound: float) -> Pairs:
    """Return the positions of all products that can belong to a row's nearest neighbour.

    products: float32 [q, g], both whole tiles; -inf marks what is no pair. known: float64 [q or fewer].
    Only tiles of a row whose largest product passes are looked at again, so the products are read once.
    """
    tiles = products.unflatten(1, (-1, _TILE))
    largest_in_tile = tiles.amax(dim=2)
    largest = largest_in_tile.amax(dim=1)
    floor = torch.full_like(largest, torch.inf)
    floor[: len(known)] = torch.from_numpy(known - bound).to(floor.device, floor.dtype)
    threshold = torch.maximum(floor, largest - 2 * bound)
    row, tile = torch.nonzero((largest_in_tile >= threshold[:, None]) & (largest_in_tile > -torch.inf), as_tuple=True)
    pair, place = torch.nonzero(tiles[row, tile] >= threshold[row, None], as_tuple=True)
    return row[pair].cpu().numpy(), (tile[pair] * _TILE + place).cpu().numpy()


def _near_best_hit(
    products: np.ndarray, row: np.ndarray, gallery_rows: int, known: np.ndarray, bound: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs among the hits that `_near_maximum` would return, and whether these are all of a query's.

    products, row: float32 and int64 [q, k], the k largest products of each query; -inf marks the query itself.
    """
    threshold = np.maximum(known - bound, products.max(axis=1) - 2 * bound).astype(np.float32)
    is_near = (products >= threshold[:, None]) & np.isfinite(products)
    # With the smallest hit below the threshold nothing that was left out can be above it.
    smallest = np.where(np.isfinite(products), products, np.inf).min(axis=1)
    is_complete = (smallest < threshold) | (products.shape[1] == gallery_rows)
    query, hit = np.nonzero(is_near)
    return query, row[query, hit], is_complete
