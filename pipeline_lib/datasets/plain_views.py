"""The plain views: evaluation, centre crop, training augmentation.

Every draw is decided by `draw_seed` alone, so no result depends on block, batch, worker or order.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
import xxhash
from PIL.Image import Image
from timm.data.transforms_factory import create_transform

from pipeline_lib.config.features import Augmentation, CentreCrop


class View(Protocol):
    """Turns an RGB image into uint8 pixels [3, H, W]; `extras` names the float32 values it also returns."""

    extras: tuple[str, ...]

    def __call__(self, image: Image, sample_id: int, epoch: int) -> tuple[torch.Tensor, tuple[float, ...]]: ...


class EvaluationView:
    """Resize and centre-crop as the backbone's data config says."""

    extras: tuple[str, ...] = ()

    def __init__(self, data_config: Mapping[str, Any]) -> None:
        self._transform = create_transform(
            input_size=tuple(data_config["input_size"]),
            is_training=False,
            use_prefetcher=True,  # uint8 pixels: they are normalised in batches on the backbone's device
            interpolation=data_config["interpolation"],
            crop_pct=data_config["crop_pct"],
            crop_mode=data_config["crop_mode"],
        )

    def __call__(self, image: Image, sample_id: int, epoch: int) -> tuple[torch.Tensor, tuple[float, ...]]:
        return self._transform(image), ()


class CentreCropView:
    """Keep the central `crop_fraction` of both sides, drawn from U(minimum, maximum) once per image."""

    extras: tuple[str, ...] = ("crop_fraction",)

    def __init__(self, crop: CentreCrop, data_config: Mapping[str, Any]) -> None:
        self._minimum, self._maximum, self._seed = crop.minimum, crop.maximum, crop.seed
        self._evaluation = EvaluationView(data_config)

    def __call__(self, image: Image, sample_id: int, epoch: int) -> tuple[torch.Tensor, tuple[float, ...]]:
        generator = random.Random(draw_seed(self._seed, epoch, sample_id))
        fraction = generator.uniform(self._minimum, self._maximum)
        return self._evaluation(centre_crop(image, fraction), sample_id, epoch)[0], (fraction,)


class AugmentedView:
    """timm's training transform, drawn anew for every (seed, epoch, sample_id).

    Each draw seeds the global generators of `random`, NumPy and torch (CPU), from which timm draws.

    Parameters
    ----------
    augmentation : Augmentation
        Crop, flip and colour jitter.
    seed : int
        Another seed gives other draws.
    data_config : mapping
        How the backbone wants its images; their size is used.
    auto_augment : str, optional
        timm's name of a policy that replaces the colour jitter, such as "augmix-m3-w3".
    """

    extras: tuple[str, ...] = ()

    def __init__(
        self, augmentation: Augmentation, seed: int, data_config: Mapping[str, Any], auto_augment: str | None = None
    ) -> None:
        self._seed = seed
        self._transform = create_transform(
            input_size=tuple(data_config["input_size"]),
            is_training=True,
            use_prefetcher=True,
            scale=augmentation.scale,
            ratio=augmentation.ratio,
            hflip=augmentation.horizontal_flip,
            color_jitter=augmentation.color_jitter or None,  # type: ignore[arg-type]  # timm takes None for no jitter
            color_jitter_prob=augmentation.color_jitter_probability,
            auto_augment=auto_augment,
            interpolation=augmentation.interpolation,
        )

    def __call__(self, image: Image, sample_id: int, epoch: int) -> tuple[torch.Tensor, tuple[float, ...]]:
        seed_generators(self._seed, epoch, sample_id)
        return self._transform(image), ()


def centre_crop(image: Image, fraction: float) -> Image:
    """Return the central part with `fraction` of both sides, at least one pixel."""
    width, height = (max(1, round(side * fraction)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def draw_seed(seed: int, epoch: int, sample_id: int) -> int:
    """Return a 63-bit seed that is unrelated between any two (seed, epoch, sample_id)."""
    return xxhash.xxh3_64_intdigest(f"{seed}/{epoch}/{sample_id}".encode()) >> 1


def seed_generators(seed: int, epoch: int, sample_id: int) -> None:
    """Seed the global generators of one draw, from which timm draws."""
    value = draw_seed(seed, epoch, sample_id)
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.default_generator.manual_seed(value)


def draw_generator(seed: int, epoch: int, sample_id: int) -> np.random.Generator:
    """Return the generator of one draw, for all that is decided beside timm's transform.

    It is of another kind (PCG64) than the global ones that timm draws from (Mersenne Twisters): with the same seed,
    one of theirs would repeat their first numbers, and the smallest crops, say, would be the ones that are changed.
    """
    return np.random.default_rng(draw_seed(seed, epoch, sample_id))
