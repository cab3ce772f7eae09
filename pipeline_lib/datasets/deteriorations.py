"""Deteriorations: four ways to make an image harder to recognise, each at growing severities.

- blur: Gaussian; strength = standard deviation as a share of the shorter side.
- box: one grey box of the image's shape over a share of its area; strength = that share.
- zoom: the central part; strength = the share of both sides that is kept.
- noise: Gaussian, on the pixels that the backbone gets; strength = standard deviation, where white is 1.

All but the noise come before the evaluation transform; that would average noise away. A draw is the same for all
severities of an image: a larger box contains the smaller one, and stronger noise is the same pattern scaled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from pipeline_lib.config.views import DrawnDeteriorations
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.plain_views import EvaluationView, centre_crop, draw_generator

GREY = (128, 128, 128)


class DeteriorationsView:
    """Epoch e is the e-th of the draws, decided by (seed, sample_id) alone."""

    extras: tuple[str, ...] = ()

    def __init__(self, spec: DrawnDeteriorations, data_config: Mapping[str, Any]) -> None:
        self._seed, self._draws = spec.seed, spec.draws
        self._evaluation = EvaluationView(data_config)

    def __call__(self, image: Image.Image, sample_id: int, epoch: int) -> tuple[torch.Tensor, tuple[float, ...]]:
        if not 0 <= epoch < len(self._draws):
            raise PipelineError(f"view 'deteriorations' has {len(self._draws)} draws, so there is no epoch {epoch}")
        kind, strength = self._draws[epoch].kind, self._draws[epoch].strength
        generator = draw_generator(self._seed, 0, sample_id)  # epoch 0 for all: one draw per image, not per severity
        match kind:
            case "blur":
                image = blur(image, strength)
            case "box":
                image = cover(image, strength, generator)
            case "zoom":
                image = centre_crop(image, strength)
        pixels, _ = self._evaluation(image, sample_id, epoch)
        return (add_noise(pixels, strength, generator) if kind == "noise" else pixels), ()


def blur(image: Image.Image, share: float) -> Image.Image:
    """Blur with a Gaussian whose standard deviation is `share` times the shorter side."""
    return image.filter(ImageFilter.GaussianBlur(share * min(image.size)))


def cover(image: Image.Image, share: float, generator: np.random.Generator) -> Image.Image:
    """Cover `share` of the area with a grey box of the image's shape, at a random place inside the image.

    Two numbers are drawn, whatever the share: the box stays at the same place relative to the room that it has, so
    that of two boxes from equal generators the larger contains the smaller.
    """
    width, height = (max(1, round(side * share**0.5)) for side in image.size)
    # Rounded down: left and right edges then never move inwards as the box grows.
    left, top = (int(generator.random() * room) for room in (image.width - width + 1, image.height - height + 1))
    covered = image.copy()
    covered.paste(GREY, (left, top, left + width, top + height))
    return covered


def add_noise(pixels: torch.Tensor, sigma: float, generator: np.random.Generator) -> torch.Tensor:
    """Add independent Gaussian noise to every value of uint8 `pixels`; sigma is relative to white (255)."""
    noise = torch.from_numpy(generator.standard_normal(pixels.shape, dtype=np.float32))
    return (pixels + 255 * sigma * noise).round().clamp(0, 255).to(torch.uint8)
