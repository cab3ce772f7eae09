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

from pipeline_lib.core import artefacts
from pipeline_lib.features import store
from pipeline_lib.features.blocks import block_name
from pipeline_lib.features.cache import BLOCK_STAGE, CACHE_STAGE, FeatureCache

ROWS, DIM, PIECE, BLOCKS = 16_384, 768, 16_384, 8
MINIMUM_SHARE = 0.60


def write_view(view_dir: Path, storage: str) -> FeatureCache:
    """Write a cache of random rows, 25 MB a block."""
    generator = np.random.default_rng(0)
    blocks = []
    for block in range(BLOCKS):
        samples = (block * ROWS, (block + 1) * ROWS)
        name = block_name(samples, (0, 1))
        embedding = generator.standard_normal((1, ROWS, DIM), np.float32).astype(np.float16)
        with artefacts.writing(view_dir / "blocks" / name, BLOCK_STAGE, {}) as draft:
            store.write_arrays(draft.path, storage, {"embedding": embedding}, PIECE)
        digest = artefacts.file_digest(view_dir / "blocks" / name / artefacts.MANIFEST)
        blocks.append({"name": name, "digest": digest, "rows": ROWS, "epochs": [0, 1]})
    with artefacts.writing(view_dir / "cache", CACHE_STAGE, {}) as draft:
        draft.facts.update(blocks=blocks, rows=ROWS * BLOCKS, epochs=1, dim=DIM, arrays=["embedding"])
    return FeatureCache(view_dir)


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
            write_view(Path(directory), storage)
            first, again, copy = [], [], []
            for _ in range(5):
                cache = FeatureCache(Path(directory))
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
