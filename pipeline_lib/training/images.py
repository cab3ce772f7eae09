"""The images of a split in batches: shuffled and augmented to train on, or in order to evaluate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

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


class Normalise:
    """Turns uint8 pixels [n, 3, H, W] into images on a device, float32, as a data config's `mean` and `std` say."""

    def __init__(self, data_config: Mapping[str, Any], device: torch.device) -> None:
        self.device = device
        self._mean, self._std = (
            torch.tensor(data_config[name], device=device).view(1, 3, 1, 1) * 255 for name in ("mean", "std")
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        return (pixels.to(self.device, non_blocking=True) - self._mean) / self._std


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
    part, parts
        Only this one of so many equal parts of each batch, in its order, is decoded and yielded: what one of several
        processes that train together sees. All parts have equally many batches, some of which may be empty.

    `skipped` maps the sample_id of each image that could not be decoded to the reason. One more than the dataset
    allows raises `UnreadableImageError` naming it.
    """

    def __init__(
        self, images: ImageDataset, view: View, batch_size: int, workers: int = 0, part: int = 0, parts: int = 1
    ) -> None:
        self.images, self.batch_size, self._workers = images, batch_size, workers
        self._part, self._parts = part, parts
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
        order = torch.arange(len(self.images)) if order_seed is None else _shuffled(len(self.images), order_seed)
        for batch, errors in loaded(self._views, self._parts_of_batches(order), self._workers):
            self.skip({int(self.images.sample_id[position]): error for position, error in errors})
            if batch is not None or self._parts > 1:
                yield batch or _EMPTY

    def _parts_of_batches(self, order: Tensor) -> list[Tensor]:
        """Return the positions of this part of each batch."""
        part, parts = self._part, self._parts
        return [
            batch[len(batch) * part // parts : len(batch) * (part + 1) // parts]
            for batch in order.split(self.batch_size)
        ]

    def skip(self, errors: Mapping[int, str]) -> None:
        """Leave out images: the sample_id of each and why; raises where these are more than the dataset allows."""
        self.skipped |= errors
        if len(self.skipped) > self.images.skip_unreadable:
            error = list(self.skipped.values())[-1]
            raise UnreadableImageError(
                f"{error}; repair or remove it, or allow up to N such images with "
                f"datasets.{self.images.name}.skip_unreadable: N"
            )


def skipped_images(*batches: ImageBatches) -> list[dict[str, Any]]:
    """Return the images that could not be decoded, for a manifest: `sample_id` and `error` of each."""
    skipped = {sample_id: error for one in batches for sample_id, error in one.skipped.items()}
    return [{"sample_id": sample_id, "error": error} for sample_id, error in sorted(skipped.items())]


def _shuffled(count: int, seed: int) -> Tensor:
    """Return a random order of so many images."""
    generator = torch.Generator().manual_seed(seed)
    # The first number is left out: torch's DataLoader draws its base seed, and orders are those that it would give.
    torch.empty((), dtype=torch.int64).random_(generator=generator)
    return torch.randperm(count, generator=generator)


# A part of a batch in which no image could be decoded.
_EMPTY = Batch(torch.empty(0), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))


class _Viewed(NamedTuple):
    """One image: its uint8 pixels [3, H, W], or why it could not be decoded."""

    position: int
    label: int
    pixels: Tensor | None
    error: str = ""


class _Views:
    """The images at some positions, viewed for the current epoch, with labels drawn by `label_seed` or their own."""

    def __init__(self, images: ImageDataset, view: View, keep_bytes: int) -> None:
        self._images, self._view, self._keep_bytes = images, view, keep_bytes
        self.epoch = 0
        self.label_seed: int | None = None
        self._decoded: dict[int, Image.Image] = {}

    def __call__(self, positions: Tensor) -> tuple[Batch | None, list[tuple[int, str]]]:
        return _collate([self._viewed(position) for position in positions.tolist()])

    def _viewed(self, position: int) -> _Viewed:
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
    decoded = [(item.pixels, item.label, item.position) for item in items if item.pixels is not None]
    if not decoded:
        return None, errors
    pixels, label, position = zip(*decoded, strict=True)
    return Batch(torch.stack(pixels), torch.tensor(label), torch.tensor(position)), errors
