"""Decoded images, a few at a time, made in worker processes and handed over in order."""

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

# To hand a tensor from one process to another costs as much for one image as for a few.
_GROUP_IMAGES = 16


@dataclass(frozen=True)
class DecodedGroup:
    """Neighbouring images of a list, decoded.

    Attributes
    ----------
    pixels
        Of the m images that could be decoded, as the transform returns them, [m, 3, H, W].
    positions
        Their positions in the list.
    errors
        Why the others could not be decoded, by position.
    is_last
        Whether the group ends its chunk.
    """

    pixels: Tensor
    positions: list[int]
    errors: dict[int, str]
    is_last: bool


def decoded_groups(
    images: ImageList, chunks: Sequence[range], transform: Callable[[Image], Tensor], workers: int
) -> Iterator[DecodedGroup]:
    """Yield the images of chunks (ranges of positions) in order, in groups that lie within a chunk.

    They are decoded by `workers` processes, or in this one where that is 0.

    Raises
    ------
    PipelineError
        When a worker process dies.
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
        pixels: dict[int, Tensor] = {}
        errors: dict[int, str] = {}
        for position in self._groups[item]:
            try:
                image = self._images.image(position)
            except UnreadableImageError as error:
                errors[position] = str(error)
            else:
                pixels[position] = self._transform(image)
        is_last = self._groups[item].stop in self._ends
        stacked = torch.stack(list(pixels.values())) if pixels else torch.empty(0)
        return DecodedGroup(stacked, list(pixels), errors, is_last)
