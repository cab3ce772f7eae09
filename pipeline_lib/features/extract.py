"""Extraction of one block: images in, cached arrays out.

    dataset --decode once--> RGB --view, per epoch--> uint8 --batch, padded--> backbone --> embedding
                                                                                       \\-> logits -> scalars

The classifier runs here and never again: what is kept of its logits is the task loss, the entropy of the
predicted classes, and the rank of the true class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline_lib import artefacts
from pipeline_lib.backbones.artefact import open_backbone
from pipeline_lib.backbones.base import Backbone
from pipeline_lib.datasets.base import UnreadableImageError
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.views import View, make_view
from pipeline_lib.device import choose_device
from pipeline_lib.errors import PipelineError
from pipeline_lib.features import store
from pipeline_lib.features.cache import BLOCK_STAGE


@dataclass(frozen=True)
class Draws:
    """One decoded image: uint8 [epochs, 3, H, W] and its extras [epochs, k], or why it could not be decoded."""

    position: int
    pixels: Tensor | None
    extras: np.ndarray | None
    error: str | None = None


class _DecodedOnce(torch.utils.data.Dataset):
    """Item i: the i-th image of the block, decoded once, viewed once per epoch."""

    def __init__(self, images: ImageDataset, positions: Sequence[int], epochs: Sequence[int], view: View) -> None:
        self._images, self._positions, self._epochs, self._view = images, positions, epochs, view

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, item: int) -> Draws:
        position = self._positions[item]
        try:
            image = self._images.image(position)
        except UnreadableImageError as error:
            return Draws(position, None, None, str(error))
        sample_id = int(self._images.sample_id[position])
        drawn = [self._view(image, sample_id, epoch) for epoch in self._epochs]
        extras = np.array([values for _, values in drawn], dtype=np.float32).reshape(len(drawn), -1)
        return Draws(position, torch.stack([pixels for pixels, _ in drawn]), extras)


def extract_block(
    spec: Mapping[str, Any],
    dataset_dir: Path,
    backbone_dir: Path,
    directory: Path,
    workers: int = 0,
    on_images: Callable[[int], None] = lambda count: None,
) -> None:
    """Extract one block into `directory`.

    spec: `dataset`, `backbone`, `split`, `view`, `samples` and `epochs` (half-open ranges), `with_task_loss`
    (the labels are the classifier's), `dtype`, `precision`, `batch_size`, `chunk_rows`, `format`, `device`, `threads`.
    workers: processes that decode and augment; the result does not depend on it.
    on_images: told the number of views after each batch.

    Raises `UnreadableImageError` for an image that can't be decoded (more than the dataset allows), and
    `PipelineError` for representations or losses that are not finite.
    """
    torch.set_num_threads(spec["threads"])
    device = choose_device(spec["device"])
    images = ImageDataset(dataset_dir, spec["split"])
    backbone = open_backbone(backbone_dir, device=device, precision=spec["precision"])
    if spec["with_task_loss"] and backbone.num_classes != len(images.classes):
        raise PipelineError(
            f"backbone '{spec['backbone']}' classifies {backbone.num_classes} classes, but the upstream dataset "
            f"'{images.name}' has {len(images.classes)}; choose a backbone trained on it, or another upstream"
        )
    view = make_view(spec["view"], backbone.data_config)
    positions, epochs = range(*spec["samples"]), range(*spec["epochs"])
    loader = _loader(_DecodedOnce(images, positions, epochs, view), workers)

    arrays = _allocate(spec, backbone.dim, view.extras)
    kept, skipped = [], []
    batches = _Batches(spec["batch_size"])
    with torch.inference_mode():
        for draws in loader:
            if draws.error is not None:
                skipped.append({"sample_id": int(images.sample_id[draws.position]), "error": draws.error})
                if len(skipped) > images.skip_unreadable:
                    raise UnreadableImageError(
                        f"{draws.error}; repair or remove it, or allow up to N such images with "
                        f"datasets.{images.name}.skip_unreadable: N"
                    )
                continue
            row = len(kept)
            kept.append(draws.position)
            for column, name in enumerate(view.extras):
                arrays[name][:, row] = draws.extras[:, column]
            for epoch in range(len(epochs)):
                batches.add(draws.pixels[epoch], (epoch, row, draws.position))
                if batches.full:
                    _run(backbone, batches, images, arrays, spec, on_images)
        if batches.rows:
            _run(backbone, batches, images, arrays, spec, on_images)

    arrays = {name: np.ascontiguousarray(values[:, : len(kept)]) for name, values in arrays.items()}
    arrays |= {
        "sample_id": images.sample_id[kept],
        "label": images.label[kept],
        "epoch": np.arange(*spec["epochs"], dtype=np.int64),
    }
    with artefacts.writing(directory, BLOCK_STAGE, spec) as draft:
        draft.add_input("dataset", images.manifest)
        draft.add_input("backbone", backbone.manifest)
        store.write_arrays(draft.path, spec["format"], arrays, spec["chunk_rows"])
        draft.facts.update(
            rows=len(kept),
            dim=backbone.dim,
            arrays=sorted(arrays),
            skipped=skipped,
            backbone=backbone.manifest.digest,
            dataset=images.manifest.digest,
        )


class _Batches:
    """Collects images until a batch is full; the last batch is padded by repeating its last image.

    Every forward pass thus has the same shape, whatever the block size: a matrix product of another shape may
    sum in another order and so change the last bits.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._pixels: list[Tensor] = []
        self.rows: list[tuple[int, int, int]] = []

    def add(self, pixels: Tensor, row: tuple[int, int, int]) -> None:
        self._pixels.append(pixels)
        self.rows.append(row)

    @property
    def full(self) -> bool:
        return len(self.rows) == self._size

    def take(self) -> tuple[Tensor, list[tuple[int, int, int]]]:
        padding = [self._pixels[-1]] * (self._size - len(self._pixels))
        taken = torch.stack(self._pixels + padding), self.rows
        self._pixels, self.rows = [], []
        return taken


def _run(
    backbone: Backbone,
    batches: _Batches,
    images: ImageDataset,
    arrays: Mapping[str, np.ndarray],
    spec: Mapping[str, Any],
    on_images: Callable[[int], None],
) -> None:
    """Run one batch through the backbone and put its rows where they belong."""
    pixels, rows = batches.take()
    count = len(rows)
    embedding, logits = backbone.from_pixels(pixels)
    stored = embedding[:count].float().cpu().numpy().astype(spec["dtype"])
    values = {"embedding": stored, **_scalars(logits[:count], rows, images, spec["with_task_loss"])}
    for name, batch in values.items():
        finite = np.isfinite(batch).reshape(count, -1).all(axis=1)
        if not finite.all():
            location = images.location(rows[int(np.argmin(finite))][2])
            raise PipelineError(
                f"'{name}' of backbone '{spec['backbone']}' is not finite in {spec['dtype']} for image {location} of "
                f"dataset '{images.name}'; check the weights, or try features.dtype or features.precision: float32"
            )
        epoch, row, _ = zip(*rows, strict=True)
        arrays[name][list(epoch), list(row)] = batch
    on_images(count)


def _scalars(
    logits: Tensor, rows: list[tuple[int, int, int]], images: ImageDataset, with_task_loss: bool
) -> dict[str, np.ndarray]:
    """Return what is kept of the logits [n, classes]: one number per row and array.

    class_entropy = -sum_c p_c ln p_c in nats; task_loss = -ln p_label, the cross-entropy;
    label_rank = number of classes with a higher logit than the true one (0: top-1 is right; < 5: top-5 is right).
    """
    log_probability = F.log_softmax(logits.float(), dim=1)
    scalars = {"class_entropy": -(log_probability.exp() * log_probability).sum(dim=1)}
    if with_task_loss:
        label = torch.as_tensor(images.label[[position for *_, position in rows]], device=logits.device)
        of_label = log_probability.gather(1, label[:, None])
        scalars["task_loss"] = -of_label[:, 0]
        scalars["label_rank"] = (log_probability > of_label).sum(dim=1).int()
    return {name: values.cpu().numpy() for name, values in scalars.items()}


def _allocate(spec: Mapping[str, Any], dim: int, extras: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the block's empty arrays, [epochs, samples, ...]; memory is bounded by the size of a block."""
    shape = (spec["epochs"][1] - spec["epochs"][0], spec["samples"][1] - spec["samples"][0])
    arrays = {"embedding": np.empty((*shape, dim), spec["dtype"]), "class_entropy": np.empty(shape, np.float32)}
    if spec["with_task_loss"]:
        arrays |= {"task_loss": np.empty(shape, np.float32), "label_rank": np.empty(shape, np.int32)}
    return arrays | {name: np.empty(shape, np.float32) for name in extras}


def _loader(dataset: _DecodedOnce, workers: int) -> Iterator[Draws]:
    """Iterate over decoded images in order, decoded here or in worker processes."""
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=16 if workers else None,
        # A worker draws from generators that are seeded per image; its own seed must not touch ours.
        generator=torch.Generator().manual_seed(0),
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            raise PipelineError(
                f"a process that decodes images died ({str(error).splitlines()[0]}); "
                "if it ran out of memory, lower features.workers or features.batch_size"
            ) from None
        raise
