"""Augmentation policies: another augmentation for a share of the draws, the plain one for the rest.

- augmix: timm's AugMix in place of the colour jitter.
- small_crops: the plain augmentation with a smaller range of crops.
- blur, box_overlay: the plain augmentation, then a Gaussian blur, or a grey box, of random strength.

Whether a draw is changed, and how strongly, is decided by (seed, epoch, sample_id). Draws that are not changed are
those of the plain view, byte for byte. The policies that mix two images are in `mixing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL.Image import Image
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.deteriorations import blur, cover
from pipeline_lib.datasets.plain_views import AugmentedView, draw_generator


class PolicyView:
    """The plain augmentation, changed by `spec["policy"]` with the policy's `probability`."""

    extras: tuple[str, ...] = ()

    def __init__(self, spec: Mapping[str, Any], data_config: Mapping[str, Any]) -> None:
        self._seed, self._policy = spec["seed"], spec["policy"]
        self._plain = AugmentedView(spec, data_config)
        match self._policy["kind"]:
            case "augmix":
                depth = "" if self._policy["depth"] is None else f"-d{self._policy['depth']}"
                name = f"augmix-m{self._policy['severity']}-w{self._policy['width']}{depth}"
                self._changed = AugmentedView(spec, data_config, auto_augment=name)
            case "small_crops":
                self._changed = AugmentedView({**spec, "scale": self._policy["scale"]}, data_config)
            case "blur" | "box_overlay":
                self._changed = self._plain
            case unknown:
                raise PipelineError(
                    f"policy kind '{unknown}' is unknown; "
                    "allowed: augmix, blur, box_overlay, cutmix, mixup, small_crops"
                )

    def __call__(self, image: Image, sample_id: int, epoch: int) -> tuple[torch.Tensor, tuple[float, ...]]:
        generator = draw_generator(self._seed, epoch, sample_id)
        if generator.random() >= self._policy["probability"]:
            return self._plain(image, sample_id, epoch)
        pixels, _ = self._changed(image, sample_id, epoch)
        match self._policy["kind"]:
            case "blur":
                radius = generator.uniform(*self._policy["radius"])
                return pil_to_tensor(blur(to_pil_image(pixels), radius)), ()
            case "box_overlay":
                area = generator.uniform(*self._policy["area"])
                return pil_to_tensor(cover(to_pil_image(pixels), area, generator)), ()
        return pixels, ()
