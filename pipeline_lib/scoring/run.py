"""Scoring: images in, their uncertainties (and representations) out, in bounded memory and resumable.

    images --decode, transform--> uint8 --batch, padded--> model --> representation --> one uncertainty per seed
                                                                                   \\-> all seeds together

What is kept in memory is the list of images and a few numbers for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
import xxhash

from pipeline_lib.checkpoints.model import PretrainedModel
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.scoring.batches import DecodedGroup, decoded_groups
from pipeline_lib.scoring.images import ImageList
from pipeline_lib.scoring.unfinished import Unfinished

if TYPE_CHECKING:
    from torch import Tensor

# A killed run loses what it did since the last chunk.
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

    on_images: told the number of images after each chunk and each batch within it.
    Raises `PipelineError` naming the image for which the model returns NaN or infinity.
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
    """Return the ranges of images that are scored, and kept, one after the other."""
    size = _CHUNK_BATCHES * batch_size
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def digest_of(model: PretrainedModel) -> str:
    """Return a digest of what decides a model's results: its weights, their type, and its transform."""
    digest = xxhash.xxh3_128()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy())
    digest.update(model.config.backbone.data_config.model_dump_json().encode())
    return digest.hexdigest()


def _until_last(groups: Iterator[DecodedGroup]) -> Iterator[DecodedGroup]:
    """Yield the groups of one chunk."""
    for group in groups:
        yield group
        if group.is_last:
            return


class _Chunk:
    """The images of one chunk: those that wait for their batch to be full, and what is known of the others.

    representation: float32 [n, d], NaN in the rows of images that can't be decoded.
    """

    def __init__(self, rows: range, images: ImageList, model: PretrainedModel, batch_size: int) -> None:
        self._rows, self._images, self._model, self._batch_size = rows, images, model, batch_size
        self.representation = np.full((len(rows), model.config.backbone.dim), np.nan, np.float32)
        self._by_seed = np.full((len(rows), len(model.seeds)), np.nan, np.float32)
        self._uncertainty = np.full((len(rows), 1), np.nan, np.float64)
        self._error: list[str | None] = [None] * len(rows)
        self._pixels: list[Tensor] = []
        self._waiting: list[int] = []

    def add(self, group: DecodedGroup) -> int:
        """Add a group; returns how many images became done."""
        for position, error in group.error.items():
            self._error[position - self._rows.start] = error
        done = len(group.error)
        for pixels, position in zip(group.pixels if group.position else (), group.position, strict=True):
            self._pixels.append(pixels)
            self._waiting.append(position - self._rows.start)
            if len(self._waiting) == self._batch_size:
                done += self.run()
        return done

    def run(self) -> int:
        """Run what waits through the model, padded to a whole batch; returns how many images that were."""
        count = len(self._waiting)
        if count == 0:
            return 0
        padding = [self._pixels[-1]] * (self._batch_size - count)
        representation, uncertainty = self._model.from_pixels(torch.stack(self._pixels + padding))
        representation = representation.float()
        by_seed = torch.stack([head(representation) for head in self._model.heads], dim=1)
        kept = (
            (representation, self.representation),
            (by_seed, self._by_seed),
            (uncertainty[:, None], self._uncertainty),
        )
        for values, target in kept:
            batch = values[:count].cpu().numpy()
            finite = np.isfinite(batch).all(axis=1)
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
        columns = {f"uncertainty_seed{seed}": self._by_seed[:, place] for place, seed in enumerate(self._model.seeds)}
        columns["uncertainty"] = self._uncertainty[:, 0]
        columns = {name: pa.array(values, mask=missing) for name, values in columns.items()}
        return pa.table(columns | {"error": pa.array(self._error, pa.string())})
