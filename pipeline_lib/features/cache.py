"""The cache of one view of one split: many blocks that read as one table of rows per epoch.

`write_cache` checks that blocks belong together and are complete, and records them; `FeatureCache` reads rows
across their borders. What a reader sees never depends on how the work was cut into blocks.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.core.errors import ArtefactError, NotFiniteError, PipelineError
from pipeline_lib.features.blocks import block_name, block_ranges
from pipeline_lib.features.store import BlockArrays

BLOCK_STAGE = "features"
CACHE_STAGE = "cache"
DATASET_STAGE = "dataset"
IMAGE_ARRAYS = ("sample_id", "label")
_OPEN_BLOCKS = 32


def write_cache(spec: Mapping[str, Any], dataset_dir: Path, view_dir: Path) -> None:
    """Record the blocks of a view in `<view_dir>/cache`, once they are all there and fit together.

    spec: `block` (the keys that the spec of every block has in common), `epochs`, `block_samples`, `block_epochs`.
    Raises `ArtefactError` naming the block that is missing or was made from something else, `PipelineError`
    when more images were unreadable than the dataset allows.
    """
    dataset = artefacts.read(dataset_dir, DATASET_STAGE)
    samples = dataset.facts["splits"][spec["block"]["split"]]
    blocks: list[dict[str, Any]] = []
    skipped: dict[int, dict[str, Any]] = {}
    common: dict[str, Any] = {}
    for epoch_range in block_ranges(spec["epochs"], spec["block_epochs"]):
        for sample_range in block_ranges(samples, spec["block_samples"]):
            expected = {**spec["block"], "samples": list(sample_range), "epochs": list(epoch_range)}
            name = block_name(sample_range, epoch_range)
            block = artefacts.read(Path(view_dir) / "blocks" / name, BLOCK_STAGE, expected, verify=False)
            shared = {key: block.facts[key] for key in ("dim", "arrays", "backbone", "dataset")}
            common = common or shared
            if shared != common or shared["dataset"] != dataset.digest:
                raise ArtefactError(
                    f"{block.directory}: was made from another backbone or dataset than the rest; "
                    f"delete {view_dir} and run snakemake again"
                )
            blocks.append(
                {"name": name, "digest": block.digest, "rows": block.facts["rows"], "epochs": list(epoch_range)}
            )
            skipped |= {entry["sample_id"]: entry for entry in block.facts["skipped"]}
    allowed = dataset.facts["skip_unreadable"]
    if len(skipped) > allowed:
        raise PipelineError(
            f"{len(skipped)} images of dataset '{dataset.spec['name']}' are unreadable, skip_unreadable allows "
            f"{allowed}; the first: {skipped[min(skipped)]['error']}"
        )
    with artefacts.writing(Path(view_dir) / "cache", CACHE_STAGE, spec) as draft:
        draft.add_input("dataset", dataset)
        draft.facts.update(
            **common,
            blocks=blocks,
            rows=sum(block["rows"] for block in blocks if block["epochs"] == blocks[0]["epochs"]),
            epochs=spec["epochs"],
            skipped=[skipped[sample_id] for sample_id in sorted(skipped)],
        )


class FeatureCache:
    """Rows of a view: `read(array, epoch, start, stop)` returns rows [start, stop) in sample order.

    rows: images per epoch. epochs: cached epochs. dim: length of a representation. Every block is verified
    against its checksums when it is first touched. At most `_OPEN_BLOCKS` blocks are open at a time, so
    memory does not grow with the cache. Reading from several threads is safe.
    """

    def __init__(self, view_dir: Path) -> None:
        self.view_dir = Path(view_dir)
        self.manifest: Manifest = artefacts.read(self.view_dir / "cache", CACHE_STAGE)
        facts = self.manifest.facts
        self.rows: int = facts["rows"]
        self.epochs: int = facts["epochs"]
        self.dim: int = facts["dim"]
        self.arrays: tuple[str, ...] = tuple(facts["arrays"])
        self._blocks_of_epoch: list[list[tuple[int, int, int, dict[str, Any]]]] = [[] for _ in range(self.epochs)]
        for block in facts["blocks"]:
            for position, epoch in enumerate(range(*block["epochs"])):
                blocks = self._blocks_of_epoch[epoch]
                start = blocks[-1][1] if blocks else 0
                blocks.append((start, start + block["rows"], position, block))
        self._lock = threading.Lock()
        self._verified: set[str] = set()
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
            if low >= high:
                continue
            with self._lock:
                source = self._open(block["name"], block["digest"])
                if out is None:
                    shape = (stop - start, self.dim) if array == "embedding" else (stop - start,)
                    out = np.empty(shape, source.dtype(array))
                rows = slice(low - first, high - first)
                index = (rows,) if per_image else (position, rows)
                source.read_into(array, index, out[low - start : high - start])
        return np.empty((0,), np.float32) if out is None else out

    def read_all(self, array: str, epoch: int = 0) -> np.ndarray:
        """Read one array of a whole epoch (meant for the one-number-per-image arrays)."""
        return self.read(array, epoch, 0, self.rows)

    def image_of(self, row: int) -> str:
        """Return what a message calls the image of a row."""
        (sample_id,) = self.read("sample_id", 0, row, row + 1)
        return f"{self.view_dir}: sample_id {sample_id} of dataset '{self.manifest.spec['block']['dataset']}'"

    def _open_block(self, name: str, digest: str) -> BlockArrays:
        directory = self.view_dir / "blocks" / name
        if name not in self._verified:
            read_block(self.view_dir, name, digest)
            self._verified.add(name)
        return BlockArrays(directory)


@contextlib.contextmanager
def naming_images(view_dir: Path) -> Iterator[None]:
    """Say of which image a row of a view is that turns out not to be finite."""
    try:
        yield
    except NotFiniteError as error:
        raise PipelineError(f"{FeatureCache(view_dir).image_of(error.row)}: {error}") from None


def read_block(view_dir: Path, name: str, digest: str) -> Manifest:
    """Verify a block against its checksums and against the view's record of it.

    A fault can be mended by deleting the block and the record: as long as the record is there, Snakemake takes
    the blocks behind it for granted.
    """
    directory = view_dir / "blocks" / name
    remedy = f"delete {directory} and {view_dir / 'cache'} and run snakemake again"
    manifest = artefacts.read(directory, BLOCK_STAGE, remedy=remedy)
    if manifest.digest != digest:
        raise ArtefactError(f"{directory}: is not the block that {view_dir / 'cache'} recorded; {remedy}")
    return manifest
