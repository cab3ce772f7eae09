"""The task-loss artefact: one loss per image and epoch of a view, beside the view's own cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.features.cache import FeatureCache

STAGE = "task_loss"
ARRAY = "task_loss.npy"


def write_task_loss(
    directory: Path,
    spec: Mapping[str, Any],
    cache: FeatureCache,
    losses: Callable[[int], Iterator[np.ndarray]],
    progress: Callable[[int], None] = lambda rows: None,
) -> None:
    """Write the losses of all epochs of a view, float32 [epochs, rows].

    losses: yields those of an epoch in pieces, in the order of the rows. progress: told the rows of each piece.
    Raises `PipelineError` for a loss that is not finite.
    """
    with artefacts.writing(directory, STAGE, spec) as draft:
        shape = (cache.epochs, cache.rows)
        stored = np.lib.format.open_memmap(draft.path / ARRAY, "w+", np.float32, shape)
        for epoch in range(cache.epochs):
            row = 0
            for piece in losses(epoch):
                if not np.isfinite(piece).all():
                    raise PipelineError(
                        f"task_loss of epoch {epoch}, row {row + int(np.argmin(np.isfinite(piece)))} is not finite; "
                        "raise task_losses.temperature"
                    )
                stored[epoch, row : row + len(piece)] = piece
                row += len(piece)
                progress(len(piece))
        stored.flush()
        draft.add_input("features", cache.manifest)
        draft.facts.update(epochs=cache.epochs, rows=cache.rows)


class WithTaskLoss:
    """The rows of a cache, whose `task_loss` is that of a task-loss artefact.

    Raises `ArtefactError` when the artefact is damaged, not the `expected` one, or was made from another cache.
    """

    def __init__(self, cache: FeatureCache, directory: Path, expected: Mapping[str, Any] | None = None) -> None:
        self.manifest: Manifest = artefacts.read(directory, STAGE, expected)
        if self.manifest.inputs["features"] != cache.manifest.digest:
            raise ArtefactError(
                f"{directory}: was made from another cache than {cache.view_dir}; delete it and run snakemake again"
            )
        self.rows, self.epochs, self.dim = cache.rows, cache.epochs, cache.dim
        self._cache = cache
        self._task_loss = np.load(Path(directory) / ARRAY, mmap_mode="r")

    def read(self, array: str, epoch: int, start: int, stop: int) -> np.ndarray:
        """Return rows [start, stop) of an array in one epoch; see `FeatureCache.read`."""
        if array == "task_loss":
            return np.array(self._task_loss[epoch, start:stop])
        return self._cache.read(array, epoch, start, stop)
