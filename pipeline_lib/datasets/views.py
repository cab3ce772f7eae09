"""Views: what is done to an image before the backbone sees it.

- `eval`: timm's evaluation transform of the backbone.
- `centre_crop`: a centre crop of a random share of the side, one fixed draw per image, then the same.
- augmented: timm's training transform (random resized crop, flip, colour jitter).

A view is a pure function of (image, sample_id, epoch): the generators that timm's transforms draw from are
seeded anew for each draw, so no result depends on block, batch, worker or order.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
import xxhash
from PIL.Image import Image
from timm.data import create_transform

from pipeline_lib.errors import PipelineError


class View(Protocol):
    """Turns an RGB image into uint8 pixels [3, H, W]; `extras` names the float32 values it also returns."""

    extras: tuple[str, ...]

    def __call__(self, image: Image, sample_id: int, epoch: int) -> tuple[torch.Tensor, tuple[float, ...]]: ...


def make_view(spec: Mapping[str, Any], data_config: Mapping[str, Any]) -> View:
    """Build a view from its spec (`kind` and its options) and the backbone's data config."""
    match spec["kind"]:
        case "eval":
            return EvaluationView(data_config)
        case "centre_crop":
            return CentreCropView(spec, data_config)
        case "augmented":
            return AugmentedView(spec, data_config)
    raise PipelineError(f"view kind '{spec['kind']}' is unknown; allowed: augmented, centre_crop, eval")


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

    def __init__(self, spec: Mapping[str, Any], data_config: Mapping[str, Any]) -> None:
        self._minimum, self._maximum, self._seed = spec["minimum"], spec["maximum"], spec["seed"]
        self._evaluation = EvaluationView(data_config)

    def __call__(self, image: Image, sample_id: int, epoch: int) -> tuple[torch.Tensor, tuple[float, ...]]:
        generator = random.Random(draw_seed(self._seed, epoch, sample_id))
        fraction = generator.uniform(self._minimum, self._maximum)
        width, height = (max(1, round(side * fraction)) for side in image.size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        cropped = image.crop((left, top, left + width, top + height))
        return self._evaluation(cropped, sample_id, epoch)[0], (fraction,)


class AugmentedView:
    """timm's training transform, drawn anew for every (seed, epoch, sample_id).

    Seeds the global generators of `random`, NumPy and torch (CPU), from which timm draws.
    """

    extras: tuple[str, ...] = ()

    def __init__(self, spec: Mapping[str, Any], data_config: Mapping[str, Any]) -> None:
        self._seed = spec["seed"]
        self._transform = create_transform(
            input_size=tuple(data_config["input_size"]),
            is_training=True,
            use_prefetcher=True,
            scale=tuple(spec["scale"]),
            ratio=tuple(spec["ratio"]),
            hflip=spec["horizontal_flip"],
            color_jitter=spec["color_jitter"] or None,
            color_jitter_prob=spec["color_jitter_probability"],
            interpolation=spec["interpolation"],
        )

    def __call__(self, image: Image, sample_id: int, epoch: int) -> tuple[torch.Tensor, tuple[float, ...]]:
        seed = draw_seed(self._seed, epoch, sample_id)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        return self._transform(image), ()


def draw_seed(seed: int, epoch: int, sample_id: int) -> int:
    """Return a 63-bit seed that is unrelated between any two (seed, epoch, sample_id)."""
    return xxhash.xxh3_64_intdigest(f"{seed}/{epoch}/{sample_id}".encode()) >> 1
