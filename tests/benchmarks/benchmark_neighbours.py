"""Exact nearest neighbours against faiss's flat index, in one run: `python tests/benchmarks/benchmark_neighbours.py`.

Prints seconds and the ratio; ends with an error when the search is not at least twice as fast.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import faiss
import numpy as np
import torch

from pipeline_lib.config.evaluation import Neighbours
from pipeline_lib.retrieval.search import nearest_neighbours

BOUND = 2.0


def seconds(work: Callable[[], object]) -> float:
    """Return the wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def search_with_faiss(values: np.ndarray) -> np.ndarray:
    """Return the second hit of faiss's exact index, which is the usual way to leave out the query."""
    unit = values.astype(np.float32)
    faiss.normalize_L2(unit)
    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    return index.search(unit, 2)[1][:, 1]


def main() -> int:
    """Run both searches in turns and compare their best times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--block-rows", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    values = np.random.default_rng(0).normal(size=(arguments.rows, arguments.dim)).astype(np.float16)

    options = Neighbours(device="cpu", block_rows=arguments.block_rows)

    def search() -> np.ndarray:
        return nearest_neighbours(lambda start, stop: values[start:stop], arguments.rows, options).index

    agreement = float((search() == search_with_faiss(values)).mean())
    ours, theirs = [], []
    for _ in range(arguments.repeats):
        ours.append(seconds(search))
        theirs.append(seconds(lambda: search_with_faiss(values)))
    ratio = min(theirs) / min(ours)
    print(
        f"neighbours, {arguments.rows:,} x {arguments.dim}, {arguments.threads} threads: {min(ours):.2f} s, faiss "
        f"IndexFlatIP {min(theirs):.2f} s, ratio {ratio:.2f} (at least {BOUND}), agreement {agreement:.4%}"
    )
    return 0 if ratio >= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
