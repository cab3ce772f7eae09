"""How fast cached features are read, against copying the same bytes in memory.

Both formats are read through `FeatureCache`, in the pieces that training reads, on the first touch of each block
(which includes checking it against its checksums) and again.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline_lib.features.cache import FeatureCache
from tests.unit.worlds import stored_view

ROWS, DIM, PIECE, BLOCKS = 16_384, 768, 16_384, 8
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
    """Measure, print one line per ratio, and return 1 when one misses its bound."""
    source = np.ones((ROWS * BLOCKS, DIM), np.float16)
    missed = False
    for storage in ("zarr", "hdf5"):
        with tempfile.TemporaryDirectory() as directory:
            view_dir = write_view(Path(directory), storage).view_dir
            first, again, copy = [], [], []
            for _ in range(5):
                cache = FeatureCache(view_dir)
                copy.append(copy_seconds(source))
                first.append(read_seconds(cache))
                again.append(read_seconds(cache))
            for name, seconds in (("read", min(again)), ("read and verify", min(first))):
                ratio = min(copy) / seconds
                bound = f"at least {MINIMUM_SHARE:.2f}: {'ok' if ratio >= MINIMUM_SHARE else 'MISSED'}"
                missed |= name == "read" and ratio < MINIMUM_SHARE
                speed = source.nbytes / seconds / 1e9
                bound = bound if name == "read" else "no bound"
                print(f"cache {storage:8} {name + ' / memcpy':26} {ratio:5.2f} ({bound}) {speed:.1f} GB/s", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
