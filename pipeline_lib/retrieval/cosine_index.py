"""The nearest rows of a matrix by cosine similarity, found by any index of faiss.

The similarity is that of `neighbours`: a float64 sum on the stored float32 values, each pair's on its own, 0 for a
zero vector. faiss proposes a few more rows than were asked for, by products of unit rows in float32; these are put in
order by the similarity, equal ones by their row. With the factory `Flat` the result is that of brute force, unless
more than `_SPARE` rows are within float32 rounding of the last one that is returned.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline_lib.core.errors import PipelineError

_SPARE = 16
_PIECE_VALUES = 1 << 22  # float64 values of candidates held at a time: 32 MB


class CosineIndex:
    """An index of rows, float32 [n, d], which it holds beside faiss's own copy.

    factory: faiss's factory string; an index that must be trained is trained on the rows. parameters: of its search.
    Raises `PipelineError` when faiss can't build it.
    """

    def __init__(self, values: np.ndarray, factory: str, parameters: str) -> None:
        self._values = values
        self._index = faiss_index(values.shape[1], factory, parameters)
        unit = _unit(values)
        try:
            if not self._index.is_trained:
                self._index.train(unit)
            self._index.add(unit)
        except RuntimeError as error:
            raise PipelineError(
                f"faiss can't build '{factory}' from {len(values)} items: {_reason(error)}; "
                "add more items first, or use factory 'Flat'"
            ) from None

    def search(self, queries: np.ndarray, k: int, own_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the k nearest rows, int64 [n, k], and their similarities, float64 [n, k], nearest first.

        queries: float32 [n, d]. own_rows: a row that each query must not find, int64 [n]; -1 = none.
        Where there are less than k, row -1 and similarity NaN.
        """
        row = np.full((len(queries), k), -1, np.int64)
        similarity = np.full((len(queries), k), np.nan)
        candidates = min(k + _SPARE, len(self._values))
        pieces = math.ceil(len(queries) * candidates * queries.shape[1] / _PIECE_VALUES)
        for piece in np.array_split(np.arange(len(queries)), max(1, pieces)):
            _, proposed = self._index.search(_unit(queries[piece]), candidates)
            is_there = (proposed >= 0) & (proposed != own_rows[piece, None])
            known = np.where(is_there, _cosine(queries[piece], self._values[proposed]), -np.inf)
            # The last key is the first to count.
            order = np.lexsort((proposed, -known), axis=1)[:, :k]
            known = np.take_along_axis(known, order, axis=1)
            found = np.take_along_axis(proposed, order, axis=1)
            row[piece, : order.shape[1]] = np.where(known > -np.inf, found, -1)
            similarity[piece, : order.shape[1]] = np.where(known > -np.inf, known, np.nan)
        return row, similarity


def faiss_index(dim: int, factory: str, parameters: str) -> Any:
    """Return an empty index of inner products; raises `PipelineError` for a factory or parameters of no index."""
    import faiss  # takes half a second

    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        if parameters:
            faiss.ParameterSpace().set_index_parameters(index, parameters)
    except RuntimeError as error:
        raise PipelineError(
            f"faiss refuses factory '{factory}' with parameters '{parameters}': {_reason(error)}; allowed are faiss's "
            "factory strings, such as Flat, IVF256,Flat (with nprobe=16) or HNSW32 (with efSearch=64)"
        ) from None
    if isinstance(index, faiss.IndexIDMap):
        raise PipelineError(
            f"factory '{factory}': faiss's IDMap keeps ids, but ours are kept here; leave it out of the factory, "
            f"'{factory.partition(',')[2] or 'Flat'}'"
        )
    return index


def _cosine(queries: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return the similarities of queries [n, d] and items [n, c, d], float64 [n, c]."""
    products = items.astype(np.float64)
    norms = np.sqrt((products * products).sum(axis=2))
    wide = queries.astype(np.float64)
    norms *= np.sqrt((wide * wide).sum(axis=1))[:, None]
    products *= wide[:, None]
    return products.sum(axis=2) / np.where(norms > 0, norms, 1.0)


def _unit(values: np.ndarray) -> np.ndarray:
    """Return rows divided by their norms, float32; zero vectors stay zero."""
    norm = np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    return np.ascontiguousarray(values / np.where(norm > 0, norm, 1.0), dtype=np.float32)


def _reason(error: RuntimeError) -> str:
    """Return what faiss says, without the place in its source: `Error in <function> at <file>:<line>: <reason>`."""
    return str(error).split(": ", 1)[1].strip()
