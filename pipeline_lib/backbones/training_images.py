"""The images of a split in batches: shuffled and augmented to train on, or in order to evaluate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline_lib.datasets.base import UnreadableImageError
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.loading import loaded
from pipeline_lib.datasets.plain_views import View

# Decoded images are kept up to this size: a small world is decoded once, a large one every epoch.
_DECODED_BYTES = 1 << 30


class Batch(NamedTuple):
    """Pixels uint8 [n, 3, H, W] of the images at `position` int64 [n], and their labels int64 [n]."""

    pixels: Tensor
    label: Tensor
    position: Tensor


class ImageBatches:
    """The images of a split, seen through a view, in batches.

    Parameters
    ----------
    images
        The split.
    view
        What is done to each image, a pure function of (image, sample_id, epoch).
    batch_size
        Images per batch; the last batch is smaller, and so is one with an image that can't be decoded.
    workers
        Processes that decode and view; the batches don't depend on it. With 0, up to 1 GiB of decoded images is kept.

    `skipped` maps the sample_id of each image that could not be decoded to the reason. One more than the dataset
    allows raises `UnreadableImageError` naming it.
    """

    def __init__(self, images: ImageDataset, view: View, batch_size: int, workers: int = 0) -> None:
        self.images, self.batch_size, self._workers = images, batch_size, workers
        self._views = _Views(images, view, 0 if workers else _DECODED_BYTES)
        self.skipped: dict[int, str] = {}

    def shuffled(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield the images of an epoch in an order that is a function of (seed, epoch).

        The label of an image with votes is drawn from them, by (seed, epoch, sample_id).
        """
        return self._batches(epoch, label_seed=seed, order_seed=(seed << 20) + epoch)

    def in_order(self) -> Iterator[Batch]:
        """Yield the images in the order of the split, as the view draws them for epoch 0, with their own labels."""
        return self._batches(0, label_seed=None, order_seed=None)

    def _batches(self, epoch: int, label_seed: int | None, order_seed: int | None) -> Iterator[Batch]:
        self._views.epoch, self._views.label_seed = epoch, label_seed
        loader = DataLoader(
            self._views,
            batch_size=self.batch_size,
            shuffle=order_seed is not None,
            generator=torch.Generator().manual_seed(order_seed or 0),
            num_workers=self._workers,
            collate_fn=_collate,
        )
        for batch, errors in loaded(loader):
            for position, error in errors:
                self._skip(position, error)
            if batch is not None:
                yield batch

    def _skip(self, position: int, error: str) -> None:
        self.skipped[int(self.images.sample_id[position])] = error
        if len(self.skipped) > self.images.skip_unreadable:
            raise UnreadableImageError(
                f"{error}; repair or remove it, or allow up to N such images with "
                f"datasets.{self.images.name}.skip_unreadable: N"
            )


class _Viewed(NamedTuple):
    """One image: its uint8 pixels [3, H, W], or why it could not be decoded."""

    position: int
    label: int
    pixels: Tensor | None
    error: str = ""


class _Views(torch.utils.data.Dataset):
    """Item i: the i-th image, viewed for the current epoch; its label is drawn by `label_seed`, or (None) its own."""

    def __init__(self, images: ImageDataset, view: View, keep_bytes: int) -> None:
        self._images, self._view, self._keep_bytes = images, view, keep_bytes
        self.epoch = 0
        self.label_seed: int | None = None
        self._decoded: dict[int, Image.Image] = {}

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, position: int) -> _Viewed:
        if self.label_seed is None:
            label = int(self._images.label[position])
        else:
            label = self._images.drawn_label(self.label_seed, self.epoch, position)
        try:
            image = self._image(position)
        except UnreadableImageError as error:
            return _Viewed(position, label, None, str(error))
        pixels, _ = self._view(image, int(self._images.sample_id[position]), self.epoch)
        return _Viewed(position, label, pixels)

    def _image(self, position: int) -> Image.Image:
        if position in self._decoded:
            return self._decoded[position]
        image = self._images.image(position)
        size = 3 * image.width * image.height
        if size <= self._keep_bytes:
            self._decoded[position] = image
            self._keep_bytes -= size
        return image


def _collate(items: list[_Viewed]) -> tuple[Batch | None, list[tuple[int, str]]]:
    """Return the batch of the images that could be decoded (None: no image), and the others with the reasons."""
    errors = [(item.position, item.error) for item in items if item.pixels is None]
    items = [item for item in items if item.pixels is not None]
    if not items:
        return None, errors
    label, position = (torch.tensor([getattr(item, name) for item in items]) for name in ("label", "position"))
    return Batch(torch.stack([item.pixels for item in items]), label, position), errors
