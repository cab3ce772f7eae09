"""Batches of decoded images, made in worker processes and handed over in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline_lib.datasets.base import UnreadableImageError
from pipeline_lib.datasets.loading import loaded
from pipeline_lib.scoring.images import ImageList

if TYPE_CHECKING:
    from PIL.Image import Image

# Handing tensors from process to process costs the same for one image as for a few.
_GROUP_IMAGES = 16


@dataclass(frozen=True)
class DecodedGroup:
    """Neighbouring images: the pixels of those that could be decoded, and why the others could not be.

    pixels: what the transform returns, stacked, [m, 3, H, W]; None where m is 0.
    position: the place in the list of each of the m. error: the reason by the place of each other image.
    is_last: whether the group ends its chunk.
    """

    pixels: Tensor | None
    position: list[int]
    error: dict[int, str]
    is_last: bool


def decoded_groups(
    images: ImageList, chunks: Sequence[range], transform: Callable[[Image], Tensor], workers: int
) -> Iterator[DecodedGroup]:
    """Iterate over the images of some chunks in order, a few at a time, decoded here (workers = 0) or in processes.

    A group lies within one chunk. Raises `PipelineError` when a worker process dies.
    """
    groups = [chunk[start : start + _GROUP_IMAGES] for chunk in chunks for start in range(0, len(chunk), _GROUP_IMAGES)]
    loader = DataLoader(
        _Groups(images, groups, {chunk.stop for chunk in chunks}, transform),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    yield from loaded(loader, advice="lower --workers or --batch-size")


class _Groups(torch.utils.data.Dataset):
    """Item i: the i-th group of images, decoded and transformed."""

    def __init__(
        self, images: ImageList, groups: list[range], ends: set[int], transform: Callable[[Image], Tensor]
    ) -> None:
        self._images, self._groups, self._ends, self._transform = images, groups, ends, transform

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, item: int) -> DecodedGroup:
        pixels: list[Tensor] = []
        readable: list[int] = []
        errors: dict[int, str] = {}
        for position in self._groups[item]:
            try:
                image = self._images.image(position)
            except UnreadableImageError as error:
                errors[position] = str(error)
            else:
                pixels.append(self._transform(image))
                readable.append(position)
        is_last = self._groups[item].stop in self._ends
        return DecodedGroup(torch.stack(pixels) if pixels else None, readable, errors, is_last)
