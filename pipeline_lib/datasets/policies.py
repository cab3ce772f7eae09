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

from pipeline_lib.config.features import DrawnAugmentation
from pipeline_lib.config.policies import AugMix, Blur, BoxOverlay, SmallCrops
from pipeline_lib.datasets.deteriorations import blur, cover
from pipeline_lib.datasets.plain_views import AugmentedView, draw_generator
from pipeline_lib.datasets.tensor_views import augmented_view


class PolicyView:
    """The plain augmentation, changed by a policy with the policy's `probability`."""

    extras: tuple[str, ...] = ()

    def __init__(
        self,
        spec: DrawnAugmentation,
        policy: AugMix | Blur | BoxOverlay | SmallCrops,
        data_config: Mapping[str, Any],
    ) -> None:
        self._seed, self._policy = spec.seed, policy
        self._plain = self._changed = augmented_view(spec, data_config)
        match policy:
            case AugMix():
                depth = "" if policy.depth is None else f"-d{policy.depth}"
                name = f"augmix-m{policy.severity}-w{policy.width}{depth}"
                self._changed = AugmentedView(spec, spec.seed, data_config, auto_augment=name)
            case SmallCrops():
                self._changed = augmented_view(spec.model_copy(update={"scale": policy.scale}), data_config)

    def __call__(self, image: Image, sample_id: int, epoch: int) -> tuple[torch.Tensor, tuple[float, ...]]:
        generator = draw_generator(self._seed, epoch, sample_id)
        if generator.random() >= self._policy.probability:
            return self._plain(image, sample_id, epoch)
        pixels, _ = self._changed(image, sample_id, epoch)
        match self._policy:
            case Blur(radius=radius):
                return pil_to_tensor(blur(to_pil_image(pixels), generator.uniform(*radius))), ()
            case BoxOverlay(area=area):
                return pil_to_tensor(cover(to_pil_image(pixels), generator.uniform(*area), generator)), ()
        return pixels, ()
