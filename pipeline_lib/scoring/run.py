"""Scoring: images in, their uncertainties (and representations) out, in bounded memory and resumable.

    images --decode, transform--> uint8 --batch, padded--> model --> representation --> one uncertainty per seed
                                                                                   \\-> all seeds together

Memory holds the list of images and one chunk of their results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
import xxhash

from pipeline_lib.backbones.weights import state_digest
from pipeline_lib.checkpoints.model import PretrainedModel
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.scoring.batches import DecodedGroup, decoded_groups
from pipeline_lib.scoring.images import ImageList
from pipeline_lib.scoring.unfinished import Unfinished

if TYPE_CHECKING:
    from torch import Tensor

# Batches per chunk. A killed run loses what it did since its last whole chunk.
_CHUNK_BATCHES = 16


def score_images(
    images: ImageList,
    model: PretrainedModel,
    unfinished: Unfinished,
    batch_size: int,
    workers: int,
    on_images: Callable[[int], None] = lambda count: None,
) -> None:
    """Score the images that are not scored yet, chunk by chunk, into `unfinished`.

    Every batch is padded to `batch_size` and lies within a chunk, so neither a kill on the way nor the number of
    workers changes a bit of the result.

    Parameters
    ----------
    images
        What to score.
    model
        A loaded checkpoint.
    unfinished
        Receives the results, and knows what was done before.
    batch_size
        Images per forward pass.
    workers
        Processes that decode images; 0 = this one.
    on_images
        Called with the number of images that were just scored, or couldn't be read.

    Raises
    ------
    PipelineError
        When the model returns NaN or infinity for an image, which it names.
    """
    chunks = chunks_of(len(images), batch_size)[unfinished.done :]
    groups = decoded_groups(images, chunks, model.transform.pixels, workers)
    with torch.inference_mode():
        for chunk in chunks:
            scores = _Chunk(chunk, images, model, batch_size)
            for group in _until_last(groups):
                on_images(scores.add(group))
            on_images(scores.run())
            unfinished.keep(scores.table(), chunk, scores.representation, len(images))


def chunks_of(count: int, batch_size: int) -> list[range]:
    """Return the ranges of images that are scored, and kept, together."""
    size = _CHUNK_BATCHES * batch_size
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def digest_of(model: PretrainedModel) -> str:
    """Return a digest of what decides a model's results: its weights, their dtypes, and its transform."""
    transform = model.config.backbone.data_config.model_dump_json()
    return xxhash.xxh3_128_hexdigest(f"{state_digest(model.state_dict())} {transform}".encode())


def _until_last(groups: Iterator[DecodedGroup]) -> Iterator[DecodedGroup]:
    """Yield the groups of one chunk."""
    for group in groups:
        yield group
        if group.is_last:
            return


class _Chunk:
    """The results of one chunk, and its images that wait until their batch is full.

    representation: float32 [n, d], NaN in the rows of images that can't be decoded.
    """

    def __init__(self, rows: range, images: ImageList, model: PretrainedModel, batch_size: int) -> None:
        self._rows, self._images, self._model, self._batch_size = rows, images, model, batch_size
        self.representation = np.full((len(rows), model.config.backbone.dim), np.nan, np.float32)
        self._uncertainty = {f"uncertainty_seed{seed}": np.full(len(rows), np.nan, np.float32) for seed in model.seeds}
        self._uncertainty["uncertainty"] = np.full(len(rows), np.nan, np.float64)
        self._error: list[str | None] = [None] * len(rows)
        self._pixels: list[Tensor] = []
        self._waiting: list[int] = []

    def add(self, group: DecodedGroup) -> int:
        """Add a group; returns how many images are done by that."""
        for position, error in group.errors.items():
            self._error[position - self._rows.start] = error
        done = len(group.errors)
        for pixels, position in zip(group.pixels, group.positions, strict=True):
            self._pixels.append(pixels)
            self._waiting.append(position - self._rows.start)
            if len(self._waiting) == self._batch_size:
                done += self.run()
        return done

    def run(self) -> int:
        """Run the waiting images through the model, padded to a whole batch; returns how many these were."""
        count = len(self._waiting)
        if count == 0:
            return 0
        padding = [self._pixels[-1]] * (self._batch_size - count)
        representation, uncertainty = self._model.from_pixels(torch.stack(self._pixels + padding))
        representation = representation.float()
        results = [representation, *(head(representation) for head in self._model.heads), uncertainty]
        for values, target in zip(results, (self.representation, *self._uncertainty.values()), strict=True):
            batch = values[:count].cpu().numpy()
            finite = np.isfinite(batch.reshape(count, -1)).all(axis=1)
            if not finite.all():
                position = self._rows.start + self._waiting[int(np.argmin(finite))]
                raise PipelineError(
                    f"{self._images.path[position]}: the model returns NaN or infinity for this image; check the "
                    "checkpoint's weights, or try --precision float32"
                )
            target[self._waiting] = batch
        self._pixels, self._waiting = [], []
        return count

    def table(self) -> pa.Table:
        """Return a row per image: `uncertainty_seed<k>` float32, `uncertainty` float64, null where `error` is set."""
        missing = np.array([error is not None for error in self._error])
        columns = {name: pa.array(values, mask=missing) for name, values in self._uncertainty.items()}
        return pa.table(columns | {"error": pa.array(self._error, pa.string())})
