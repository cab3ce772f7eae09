"""The nearest rows of a matrix by cosine similarity, found by any index of faiss.

faiss proposes a few more rows than were asked for, by products of unit rows in float32; these are put in order by the
similarity of `cosine`. With the factory `Flat` the result is that of brute force, unless more than `_SPARE` rows are
within float32 rounding of the last one that is returned.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.retrieval.cosine import Nearest, Rows, similarities

_SPARE = 16
_PIECE_VALUES = 1 << 22  # values of candidates held at a time: 32 MB


class CosineIndex:
    """An index of rows, float32 [n, d], which it holds beside faiss's own copy.

    factory: faiss's factory string; an index that must be trained is trained on the rows. parameters: of its search.
    Raises `PipelineError` when faiss can't build it.
    """

    def __init__(self, values: np.ndarray, factory: str, parameters: str) -> None:
        self._rows = Rows.of(values, np.arange(len(values)))
        self._index = faiss_index(values.shape[1], factory, parameters)
        unit = self._rows.unit(np.float32)
        try:
            if not self._index.is_trained:
                self._index.train(unit)
            self._index.add(unit)
        except RuntimeError as error:
            raise PipelineError(
                f"faiss can't build '{factory}' from {len(values)} items: {_reason(error)}; "
                "add more items first, or use factory 'Flat'"
            ) from None

    def search(self, queries: np.ndarray, k: int, own_rows: np.ndarray) -> Nearest:
        """Return the k nearest rows of each query.

        queries: float32 [n, d]. own_rows: a row that each query must not find, int64 [n]; -1 = none.
        """
        asked = Rows.of(queries, own_rows)
        unit = asked.unit(np.float32)
        nearest = Nearest.none(len(queries), k)
        candidates = min(k + _SPARE, len(self._rows.index))
        pieces = math.ceil(len(queries) * candidates * queries.shape[1] / _PIECE_VALUES)
        for piece in np.array_split(np.arange(len(queries)), max(1, pieces)):
            _, proposed = self._index.search(unit[piece], candidates)
            is_candidate = (proposed >= 0) & (proposed != own_rows[piece, None])
            query, row = piece[np.nonzero(is_candidate)[0]], proposed[is_candidate]
            nearest.add(query, row, similarities(asked, query, self._rows, row))
        return nearest


def faiss_index(dim: int, factory: str, parameters: str) -> Any:
    """Return an empty index of inner products; raises `PipelineError` for a factory or parameters of no index."""
    import faiss  # takes half a second

    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        if parameters:
            # faiss's stubs know this method by one of its overloads alone.
            faiss.ParameterSpace().set_index_parameters(index, parameters)  # type: ignore[arg-type]
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


def _reason(error: RuntimeError) -> str:
    """Return what faiss says, without where in its source: `Error in <function> at <file>:<line>: <reason>`."""
    return str(error).split(": ", 1)[1].strip()
