"""How fast cached features are read, against copying the same bytes in memory.

Both formats are read through `FeatureCache`, in the pieces that training reads, on the first touch of each block
(which includes checking it against its checksums) and again. The files are in the page cache: a disk is another matter.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from pipeline_lib.features.cache import FeatureCache
from tests.unit.worlds import stored_view

ROWS, DIM, PIECE, BLOCKS, PAIRS = 16_384, 768, 16_384, 8, 9
MINIMUM_SHARE = 0.60


def write_view(directory: Path, storage: str) -> FeatureCache:
    """Write a cache of random rows, 25 MB a block."""
    generator = np.random.default_rng(0)
    embedding = generator.standard_normal((1, ROWS * BLOCKS, DIM), np.float32).astype(np.float16)
    return FeatureCache(stored_view(directory / "view", embedding, storage, block_rows=ROWS, chunk_rows=PIECE))


def read_seconds(cache: FeatureCache) -> float:
    """Return the seconds of one pass over the cache."""
    start = time.perf_counter()
    for row in range(0, cache.rows, PIECE):
        cache.read("embedding", 0, row, row + PIECE)
    return time.perf_counter() - start


def copy_seconds(source: np.ndarray) -> float:
    """Return the seconds of copying the same bytes, piece by piece, into new memory as reading does."""
    start = time.perf_counter()
    for row in range(0, len(source), PIECE):
        source[row : row + PIECE].copy()
    return time.perf_counter() - start


def main() -> int:
    """Measure in interleaved pairs, print one line per ratio (median, quartiles), and return 1 for a missed bound."""
    source = np.ones((ROWS * BLOCKS, DIM), np.float16)
    missed = False
    for storage in ("zarr", "hdf5"):
        with tempfile.TemporaryDirectory() as directory:
            view_dir = write_view(Path(directory), storage).view_dir
            seconds: dict[str, list[float]] = {"read and verify": [], "read": []}
            copying = []
            for _ in range(PAIRS):
                cache = FeatureCache(view_dir)
                before = copy_seconds(source)
                seconds["read and verify"].append(read_seconds(cache))
                copying.append((before + copy_seconds(source)) / 2)
                seconds["read"].append(read_seconds(cache))
            for name, values in seconds.items():
                ratios = [copy / value for copy, value in zip(copying, values, strict=True)]
                low, ratio, high = np.quantile(ratios, (0.25, 0.5, 0.75))
                missed |= bool(ratio < MINIMUM_SHARE)
                verdict = "ok" if ratio >= MINIMUM_SHARE else "MISSED"
                print(
                    f"cache {storage:8} {name + ' / memcpy':26} {ratio:5.2f} ({low:.2f}-{high:.2f}; at least "
                    f"{MINIMUM_SHARE:.2f}: {verdict}) {source.nbytes / median(values) / 1e9:.1f} GB/s",
                    flush=True,
                )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
