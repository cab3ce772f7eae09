"""The cache of one view of one split: many blocks that read as one table of rows per epoch.

What a reader sees never depends on how the work was cut into blocks.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.core.checked_files import CheckedFiles
from pipeline_lib.core.errors import ArtefactError, NotFiniteError, PipelineError
from pipeline_lib.features.rows import IMAGE_ARRAYS
from pipeline_lib.features.spec import CacheSpec, Range
from pipeline_lib.features.store import BlockArrays

BLOCK_STAGE = "features"
CACHE_STAGE = "cache"
_OPEN_BLOCKS = 32


@dataclass(frozen=True)
class BlockRecord:
    """A block of a view: its folder below `blocks`, the digest of its content, and which rows it has."""

    name: str
    content: str
    rows: int
    epochs: Range


class FeatureCache:
    """Rows of a view: `read(array, epoch, start, stop)` returns rows [start, stop) in sample order.

    rows: images per epoch. epochs: cached epochs. dim: length of a representation. Every file of a block is checked
    against its checksum while it is first read. At most `_OPEN_BLOCKS` blocks are open at a time, so
    memory does not grow with the cache. Reading from several threads is safe.
    """

    def __init__(self, view_dir: Path) -> None:
        self.view_dir = Path(view_dir)
        self.manifest: Manifest = artefacts.read(self.view_dir / "cache", CACHE_STAGE)
        self.spec = CacheSpec.model_validate(self.manifest.spec)
        facts = self.manifest.facts
        self.rows: int = facts["rows"]
        self.epochs: int = facts["epochs"]
        self.dim: int = facts["dim"]
        self.arrays: tuple[str, ...] = tuple(facts["arrays"])
        self._blocks_of_epoch: list[list[tuple[int, int, int, BlockRecord]]] = [[] for _ in range(self.epochs)]
        for block in recorded_blocks(self.manifest):
            for position, epoch in enumerate(range(*block.epochs)):
                blocks = self._blocks_of_epoch[epoch]
                start = blocks[-1][1] if blocks else 0
                blocks.append((start, start + block.rows, position, block))
        self._lock = threading.Lock()
        self._files: dict[str, CheckedFiles] = {}
        self._open = functools.lru_cache(maxsize=_OPEN_BLOCKS)(self._open_block)

    def read(self, array: str, epoch: int, start: int, stop: int) -> np.ndarray:
        """Read rows [start, stop) of an array in one epoch; [stop - start, dim] for "embedding", else [stop - start].

        Raises `PipelineError` when the array or the rows are not there, `ArtefactError` for a damaged block.
        """
        if array not in self.arrays:
            raise PipelineError(f"{self.view_dir}: has no array '{array}'; it has {', '.join(self.arrays)}")
        if not (0 <= epoch < self.epochs and 0 <= start <= stop <= self.rows):
            raise PipelineError(
                f"{self.view_dir}: epoch {epoch}, rows {start} to {stop} were asked for, "
                f"but there are {self.epochs} epochs of {self.rows} rows"
            )
        per_image = array in IMAGE_ARRAYS
        out: np.ndarray | None = None
        for first, last, position, block in self._blocks_of_epoch[epoch]:
            low, high = max(start, first), min(stop, last)
            if low >= high and start < stop:  # of no rows, the first block says the type
                continue
            with self._lock:
                files = self._files_of(block)
            with files.blamed():
                with self._lock:
                    source = self._open(block)
                if out is None:
                    shape = (stop - start, self.dim) if array == "embedding" else (stop - start,)
                    out = np.empty(shape, source.dtype(array))
                rows = slice(low - first, high - first)
                index = (rows,) if per_image else (position, rows)
                source.read_into(array, index, out[low - start : high - start])
        assert out is not None  # a view has a block at least
        return out

    def read_all(self, array: str, epoch: int = 0) -> np.ndarray:
        """Read one array of a whole epoch (meant for the one-number-per-image arrays)."""
        return self.read(array, epoch, 0, self.rows)

    def image_of(self, row: int) -> str:
        """Return what a message calls the image of a row."""
        (sample_id,) = self.read("sample_id", 0, row, row + 1)
        return f"{self.view_dir}: sample_id {sample_id} of dataset '{self.spec.dataset}'"

    def _open_block(self, block: BlockRecord) -> BlockArrays:
        return BlockArrays(self.view_dir / "blocks" / block.name, self._files_of(block).read_into)

    def _files_of(self, block: BlockRecord) -> CheckedFiles:
        """Return the files of a block, which know which of them have been checked, also when the block is closed."""
        if block.name not in self._files:
            self._files[block.name] = _checked_files(self.view_dir, block)
        return self._files[block.name]


def recorded_blocks(cache: Manifest) -> list[BlockRecord]:
    """Return the blocks that the record of a view lists, by epoch and sample."""
    return [BlockRecord(**{**block, "epochs": tuple(block["epochs"])}) for block in cache.facts["blocks"]]


@contextlib.contextmanager
def naming_images(view_dir: Path) -> Iterator[None]:
    """Say of which image a row of a view is that turns out not to be finite."""
    try:
        yield
    except NotFiniteError as error:
        raise PipelineError(f"{FeatureCache(view_dir).image_of(error.row)}: {error}") from None


def block_remedy(view_dir: Path, name: str) -> str:
    """Return how a fault of a block is mended.

    As long as the record of the view is there, Snakemake takes the blocks behind it for granted.
    """
    return f"delete {view_dir / 'blocks' / name} and {view_dir / 'cache'} and run snakemake again"


def _checked_files(view_dir: Path, block: BlockRecord) -> CheckedFiles:
    """Return the files of a block, once its manifest is what the view's record says."""
    directory, remedy = view_dir / "blocks" / block.name, block_remedy(view_dir, block.name)
    manifest = artefacts.read(directory, BLOCK_STAGE, verify=False, remedy=remedy)
    if manifest.content != block.content:
        raise ArtefactError(f"{directory}: is not the block that {view_dir / 'cache'} recorded; {remedy}")
    return CheckedFiles(manifest, remedy)
