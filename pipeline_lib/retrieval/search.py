"""The exact search as a config asks for it: by torch or faiss, on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable

from pipeline_lib.config.evaluation import Neighbours
from pipeline_lib.core.device import choose_device
from pipeline_lib.retrieval.cosine import Nearest, ReadRows
from pipeline_lib.retrieval.neighbours import nearest_others
from pipeline_lib.retrieval.torch_candidates import FaissSearch, TorchSearch


def nearest_neighbours(
    read: ReadRows, rows: int, search: Neighbours, progress: Callable[[int], None] | None = None
) -> Nearest:
    """Find each row's nearest other row by cosine similarity, exactly, by torch or faiss.

    Parameters
    ----------
    search
        What computes the products (`faiss` uses its GPU index where it has one and the device allows it), where, and
        how many rows are in a block: three blocks are held in memory at a time, and O(n) numbers.
    read, rows, progress
        As in `nearest_others`, which says what is returned and raised.
    """
    backend = FaissSearch if search.backend == "faiss" else TorchSearch
    return nearest_others(read, rows, backend(choose_device(search.device)), search.block_rows, progress)
