"""Decoding: images of a split, each decoded once and drawn by one or several views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline_lib.datasets.base import UnreadableImageError
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.loading import loaded
from pipeline_lib.datasets.plain_views import View


@dataclass(frozen=True)
class Draws:
    """What one view made of an image: uint8 pixels [epochs, 3, H, W] and float32 extras [epochs, k]."""

    pixels: Tensor
    extras: np.ndarray


@dataclass(frozen=True)
class Decoded:
    """One image: its position in the split, and its draws by each view, or why it could not be decoded."""

    position: int
    draws: tuple[Draws, ...]
    error: str | None = None


def decoded_images(
    images: ImageDataset, positions: Sequence[int], views: Sequence[tuple[View, Sequence[int]]], workers: int
) -> Iterator[Decoded]:
    """Iterate over the images at some positions, in order, decoded here (workers = 0) or in worker processes.

    views: each view with the epochs that it draws.
    Raises `PipelineError` when a worker process dies.
    """
    loader = DataLoader(
        _DecodedOnce(images, positions, views),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=16 if workers else None,
        # A worker draws from generators that are seeded per image; its own seed must not touch ours.
        generator=torch.Generator().manual_seed(0),
    )
    yield from loaded(loader)


class _DecodedOnce(torch.utils.data.Dataset):
    """Item i: the i-th image of the block, decoded once, drawn by every view once per epoch."""

    def __init__(
        self, images: ImageDataset, positions: Sequence[int], views: Sequence[tuple[View, Sequence[int]]]
    ) -> None:
        self._images, self._positions, self._views = images, positions, views

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, item: int) -> Decoded:
        position = self._positions[item]
        try:
            image = self._images.image(position)
        except UnreadableImageError as error:
            return Decoded(position, (), str(error))
        sample_id = int(self._images.sample_id[position])
        draws = []
        for view, epochs in self._views:
            drawn = [view(image, sample_id, epoch) for epoch in epochs]
            extras = np.array([values for _, values in drawn], dtype=np.float32).reshape(len(drawn), -1)
            draws.append(Draws(torch.stack([pixels for pixels, _ in drawn]), extras))
        return Decoded(position, tuple(draws))
