"""Decoding: images of a split, each decoded once and drawn by one or several views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from pipeline_lib.datasets.base import UnreadableImageError
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.loading import loaded
from pipeline_lib.datasets.plain_views import View
from pipeline_lib.datasets.tensor_views import TensorView


@dataclass(frozen=True)
class Draws:
    """What one view made of an image: uint8 pixels [epochs, 3, H, W] and float32 extras [epochs, k]."""

    pixels: Tensor
    extras: np.ndarray


@dataclass(frozen=True)
class Decoded:
    """One image: its position in the split, and its draws by each view, or why it could not be decoded.

    image: uint8 [3, h, w] for views that are drawn on a GPU, else None.
    """

    position: int
    draws: tuple[Draws, ...]
    error: str | None = None
    image: Tensor | None = None


# Each view with the epochs that it draws.
Views = Sequence[tuple[View, Sequence[int]]]


def decoded_images(
    images: ImageDataset, positions: Sequence[int], views: Views, workers: int, device: torch.device
) -> Iterator[Decoded]:
    """Iterate over the images at some positions, in order, decoded here (workers = 0) or in worker processes.

    device: of the backbone. Views of tensors are drawn on it: by this process, if it is a GPU.
    Raises `PipelineError` when a worker process dies.
    """
    by_workers = [(view, epochs) for view, epochs in views if drawn_on(view, device).type == "cpu"]
    once = _DecodedOnce(images, by_workers, with_image=len(by_workers) < len(views))
    for decoded in loaded(once, positions, workers, ahead=16):
        if decoded.image is None:
            yield decoded
        else:
            image, sample_id = decoded.image.to(device), int(images.sample_id[decoded.position])
            drawn = iter(decoded.draws)
            draws = [
                next(drawn) if drawn_on(view, device).type == "cpu" else _draws(view, image, sample_id, epochs)
                for view, epochs in views
            ]
            yield replace(decoded, draws=tuple(draws))


def drawn_on(view: View, device: torch.device) -> torch.device:
    """Return where the draws of a view are made for a backbone on a device."""
    return device if isinstance(view, TensorView) else torch.device("cpu")


def _draws(view: View, image: Image | Tensor, sample_id: int, epochs: Sequence[int]) -> Draws:
    if isinstance(view, TensorView):
        pixels = view.draw(image if isinstance(image, Tensor) else pil_to_tensor(image), sample_id, epochs)
        return Draws(pixels, np.empty((len(epochs), 0), np.float32))
    assert not isinstance(image, Tensor)
    drawn = [view(image, sample_id, epoch) for epoch in epochs]
    extras = np.array([values for _, values in drawn], dtype=np.float32).reshape(len(drawn), -1)
    return Draws(torch.stack([pixels for pixels, _ in drawn]), extras)


class _DecodedOnce:
    """Decodes the image at a position once, and draws it by every view once per epoch."""

    def __init__(self, images: ImageDataset, views: Views, with_image: bool) -> None:
        self._images, self._views, self._with_image = images, views, with_image

    def __call__(self, position: int) -> Decoded:
        try:
            image = self._images.image(position)
        except UnreadableImageError as error:
            return Decoded(position, (), str(error))
        sample_id = int(self._images.sample_id[position])
        draws = tuple(_draws(view, image, sample_id, epochs) for view, epochs in self._views)
        return Decoded(position, draws, image=pil_to_tensor(image) if self._with_image else None)
