"""The training augmentation with torchvision's operations on tensors: the draws of timm's, on any device.

Crop, flip and jitter of a draw are those of `AugmentedView`, since the same generators are asked the same. Resizing
rounds otherwise: on a CPU mostly by one of 255 levels in a hundredth of the values, before the jitter. A GPU, and a CPU
where one side keeps its length, don't cut off what bicubic overshoots between columns and rows: more at hard edges. A
draw doesn't depend on which others are made with it: only the jitter is computed for several at once, which is exact.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from PIL.Image import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision.transforms import ColorJitter
from torchvision.transforms.functional import pil_to_tensor
from torchvision.transforms.v2 import functional

from pipeline_lib.config.features import DrawnAugmentation
from pipeline_lib.config.views import Augmented
from pipeline_lib.datasets.jitter import Steps, jitter
from pipeline_lib.datasets.plain_views import AugmentedView, View, seed_generators


class _Draw(NamedTuple):
    box: tuple[int, int, int, int]  # top, left, height, width
    interpolation: Any
    flip: bool
    jitter: Steps  # none: no jitter


class TensorView:
    """timm's training transform on tensors, drawn anew for every (seed, epoch, sample_id).

    Parameters
    ----------
    augmentation : DrawnAugmentation
        Crop, flip and colour jitter, and the seed.
    data_config : mapping
        How the backbone wants its images; their size is used.
    """

    extras: tuple[str, ...] = ()

    def __init__(self, augmentation: DrawnAugmentation, data_config: Mapping[str, Any]) -> None:
        self._augmentation, self._size = augmentation, list(data_config["input_size"][1:])
        self._filter = RandomResizedCropAndInterpolation(
            self._size, interpolation=augmentation.interpolation
        ).interpolation
        strength = augmentation.color_jitter
        self._ranges = ColorJitter(strength, strength, strength) if strength else None

    def __call__(self, image: Image, sample_id: int, epoch: int) -> tuple[Tensor, tuple[float, ...]]:
        return self.draw(pil_to_tensor(image), sample_id, [epoch])[0], ()

    def draw(self, image: Tensor, sample_id: int, epochs: Sequence[int]) -> Tensor:
        """Return the draws of some epochs, uint8 [epochs, 3, H, W], of an image, uint8 [3, h, w], on its device."""
        draws = [self._draw(image, sample_id, epoch) for epoch in epochs]
        crops = [self._cropped(image, draw) for draw in draws]
        if image.device.type == "cpu":  # one by one, which stays in its cache
            return torch.cat([_jittered(crop[None], [draw]) for crop, draw in zip(crops, draws, strict=True)])
        return _jittered(torch.stack(crops), draws)

    def _draw(self, image: Tensor, sample_id: int, epoch: int) -> _Draw:
        """Draw what timm's transform would, in its order."""
        augmentation = self._augmentation
        seed_generators(augmentation.seed, epoch, sample_id)
        box = RandomResizedCropAndInterpolation.get_params(image, augmentation.scale, augmentation.ratio)
        chosen = random.choice(self._filter) if isinstance(self._filter, tuple) else self._filter
        flip = augmentation.horizontal_flip > 0 and bool(torch.rand(1) < augmentation.horizontal_flip)
        probability = augmentation.color_jitter_probability
        if self._ranges is None or (probability is not None and bool(probability < torch.rand(1))):
            return _Draw(box, chosen, flip, ())
        ranges = self._ranges
        order, *factors = ranges.get_params(ranges.brightness, ranges.contrast, ranges.saturation, None)
        return _Draw(box, chosen, flip, [(kind, factors[kind]) for kind in order.tolist() if factors[kind] is not None])

    def _cropped(self, image: Tensor, draw: _Draw) -> Tensor:
        top, left, height, width = draw.box
        pixels = functional.resized_crop(image, top, left, height, width, self._size, draw.interpolation)
        return functional.horizontal_flip(pixels) if draw.flip else pixels


def _jittered(pixels: Tensor, draws: Sequence[_Draw]) -> Tensor:
    """Return images [n, 3, H, W] after the jitter of each draw, which some may lack."""
    rows = [row for row, draw in enumerate(draws) if draw.jitter]
    if len(rows) == len(draws):
        return jitter(pixels, [draw.jitter for draw in draws])
    if rows:
        pixels[rows] = jitter(pixels[rows], [draws[row].jitter for row in rows])
    return pixels


def augmented_view(augmentation: DrawnAugmentation, data_config: Mapping[str, Any]) -> View:
    """Return timm's training transform on what the augmentation says: Pillow's images or tensors."""
    if isinstance(augmentation, Augmented) and augmentation.pixels == "tensor":
        return TensorView(augmentation, data_config)
    return AugmentedView(augmentation, augmentation.seed, data_config)
