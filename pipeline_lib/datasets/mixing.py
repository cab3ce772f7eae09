"""CutMix and MixUp: two images of a split become one, and so do their labels.

A mixed image has the label of its own with weight `label_weight` and `partner_label` with the rest, so its task loss
is label_weight * CE(own label) + (1 - label_weight) * CE(partner_label). Where a draw isn't mixed, the weight is 1.
Both labels are those of the two images' own draws of the epoch: drawn from their votes, where they have some.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from pipeline_lib.config.features import DrawnAugmentation
from pipeline_lib.config.policies import CutMix, MixUp
from pipeline_lib.datasets.base import UnreadableImageError
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.plain_views import draw_generator
from pipeline_lib.datasets.tensor_views import augmented_view


class MixedView:
    """The plain augmentation of an image, mixed with that of a partner with the policy's `probability`.

    The partner is drawn uniformly from the split and augmented by its own draw of the same epoch, as if both had met
    in a batch. The weight of the own image is drawn from Beta(alpha, alpha). Instead of a partner that can't be decoded
    the next image of the split is taken; the image itself is readable, so the search ends.

    Parameters
    ----------
    spec : DrawnAugmentation
        The plain augmentation, and its seed.
    policy : CutMix or MixUp
        How, and how often, two images are mixed.
    data_config : mapping
        How the backbone wants its images; their size is used.
    images : ImageDataset
        The split that partners are drawn from.
    label_of : callable, optional
        Returns the label of an image in an epoch from (epoch, position); None = the split's.
    """

    extras: tuple[str, ...] = ("partner_label", "label_weight")

    def __init__(
        self,
        spec: DrawnAugmentation,
        policy: CutMix | MixUp,
        data_config: Mapping[str, Any],
        images: ImageDataset,
        label_of: Callable[[int, int], int] | None = None,
    ) -> None:
        self._seed, self._probability, self._alpha = spec.seed, policy.probability, policy.alpha
        self._mix = cutmix if isinstance(policy, CutMix) else mixup
        self._plain = augmented_view(spec, data_config)
        self._images, self._label_of = images, label_of

    def __call__(self, image: Image, sample_id: int, epoch: int) -> tuple[torch.Tensor, tuple[float, ...]]:
        pixels, _ = self._plain(image, sample_id, epoch)
        generator = draw_generator(self._seed, epoch, sample_id)
        if generator.random() >= self._probability:
            own = int(np.searchsorted(self._images.sample_id, sample_id))
            return pixels, (self._label(own, epoch), 1.0)
        weight = generator.beta(self._alpha, self._alpha)
        partner, position = self._partner(int(generator.integers(len(self._images))))
        partner_pixels, _ = self._plain(partner, int(self._images.sample_id[position]), epoch)
        mixed, weight = self._mix(pixels, partner_pixels, weight, generator)
        return mixed, (self._label(position, epoch), weight)

    def _label(self, position: int, epoch: int) -> float:
        return float(self._images.label[position] if self._label_of is None else self._label_of(epoch, position))

    def _partner(self, first: int) -> tuple[Image, int]:
        """Return the first readable image from a position on, and its position."""
        for position in (np.arange(len(self._images)) + first) % len(self._images):
            try:
                return self._images.image(int(position)), int(position)
            except UnreadableImageError:
                continue
        raise UnreadableImageError(f"dataset '{self._images.name}': no image of split '{self._images.split}' decodes")


def mixup(
    own: torch.Tensor, partner: torch.Tensor, weight: float, generator: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """Return the weighted mean of two images, uint8 [3, H, W], and the weight of the own one (Zhang et al., 2018)."""
    mixed = weight * own.float() + (1 - weight) * partner.float()
    return mixed.round().clamp(0, 255).to(torch.uint8), weight


def cutmix(
    own: torch.Tensor, partner: torch.Tensor, weight: float, generator: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """Return the own image with a box from the same place of its partner's (Yun et al., 2019).

    The box is meant to cover 1 - weight of the area; its centre is anywhere in the image, so that the border may cut
    it. The weight that is returned is the share of the area that is left of the own image.
    """
    height, width = own.shape[-2:]
    half_height, half_width = (0.5 * side * (1 - weight) ** 0.5 for side in (height, width))
    centre_y, centre_x = generator.uniform(0, height), generator.uniform(0, width)
    top, bottom = (min(max(round(edge), 0), height) for edge in (centre_y - half_height, centre_y + half_height))
    left, right = (min(max(round(edge), 0), width) for edge in (centre_x - half_width, centre_x + half_width))
    mixed = own.clone()
    mixed[:, top:bottom, left:right] = partner[:, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)
