"""Decoded images, a few at a time, made in worker processes and handed over in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

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
    load = _Groups(images, {chunk.stop for chunk in chunks}, transform)
    yield from loaded(load, groups, workers, ahead=4, advice="lower --workers or --batch-size")


class _Groups:
    """Decodes and transforms a group of images."""

    def __init__(self, images: ImageList, ends: set[int], transform: Callable[[Image], Tensor]) -> None:
        self._images, self._ends, self._transform = images, ends, transform

    def __call__(self, group: range) -> DecodedGroup:
        pixels: dict[int, Tensor] = {}
        errors: dict[int, str] = {}
        for position in group:
            try:
                image = self._images.image(position)
            except UnreadableImageError as error:
                errors[position] = str(error)
            else:
                pixels[position] = self._transform(image)
        is_last = group.stop in self._ends
        stacked = torch.stack(list(pixels.values())) if pixels else torch.empty(0)
        return DecodedGroup(stacked, list(pixels), errors, is_last)
