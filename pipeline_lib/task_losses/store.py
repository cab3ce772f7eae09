"""The task-loss artefact: one loss per image and epoch of a view, beside the view's own cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.core.jobs import Job
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.task_losses.spec import TaskLossSpec

STAGE = "task_loss"
ARRAY = "task_loss.npy"


def write_task_loss(
    job: Job[TaskLossSpec],
    cache: FeatureCache,
    losses: Iterable[np.ndarray],
    progress: Callable[[int], None] = lambda rows: None,
) -> None:
    """Write the losses of all epochs of a view, float32 [epochs, rows].

    Parameters
    ----------
    cache
        The view.
    losses
        Those of all epochs in pieces, in the order of epochs and rows.
    progress
        Told the rows of each piece.

    Raises
    ------
    PipelineError
        For a loss that is not finite.
    """
    with job.writing() as draft:
        shape = (cache.epochs, cache.rows)
        stored = np.lib.format.open_memmap(draft.path / ARRAY, "w+", np.float32, shape)
        written, values = 0, stored.reshape(-1)
        for piece in losses:
            if not np.isfinite(piece).all():
                epoch, row = divmod(written + int(np.argmin(np.isfinite(piece))), cache.rows)
                raise PipelineError(
                    f"task_loss of epoch {epoch}, row {row} is not finite; raise task_losses.temperature"
                )
            values[written : written + len(piece)] = piece
            written += len(piece)
            progress(len(piece))
        stored.flush()
        draft.facts.update(epochs=cache.epochs, rows=cache.rows)


class WithTaskLoss:
    """The rows of a cache, whose `task_loss` is that of a task-loss artefact.

    Raises `ArtefactError` when the artefact is damaged or was made from another cache.
    """

    def __init__(self, cache: FeatureCache, directory: Path) -> None:
        manifest = artefacts.read(directory, STAGE)
        if [record["content"] for record in manifest.inputs["features"]] != [cache.manifest.content]:
            raise ArtefactError(
                f"{directory}: was made from another cache than {cache.view_dir}; delete it and run snakemake again"
            )
        self.spec = TaskLossSpec.model_validate(manifest.spec)
        self.rows, self.epochs, self.dim = cache.rows, cache.epochs, cache.dim
        self._cache = cache
        self._task_loss = np.load(Path(directory) / ARRAY, mmap_mode="r")

    def read(self, array: str, epoch: int, start: int, stop: int) -> np.ndarray:
        """Return rows [start, stop) of an array in one epoch; see `FeatureCache.read`."""
        if array == "task_loss":
            return np.array(self._task_loss[epoch, start:stop])
        return self._cache.read(array, epoch, start, stop)
