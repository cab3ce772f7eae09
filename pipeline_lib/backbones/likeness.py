"""Whether a network is the backbone that heads were trained on: by its representation of one fixed image.

A digest of the weights would refuse what is harmless (a network without its classifier, other names of the same
layers, weights that were kept in float16) and miss what is not: the same weights with another pooling or another layer
as the representation. Heads read representations and nothing else, so these are compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Weights rounded to bfloat16 move a representation by less than 0.7 % (ResNet, ViT, ConvNeXt, EfficientNet); those
# that another training, or 5 % of noise, made by more than 9 %.
TOLERANCE = 0.02
_GOLDEN_RATIO = 0.6180339887498949


def fixed_image(input_size: Sequence[int]) -> Tensor:
    """Return an image of this size (channels, height, width), float32 [1, c, H, W], as if it were normalised.

    Its values fill [-2, 2) evenly and without a pattern that a filter would miss (multiples of the golden ratio, modulo
    1). They are plain float64 arithmetic, equal on every machine, which random numbers need not be.
    """
    channels, height, width = input_size
    position = torch.arange(channels * height * width, dtype=torch.float64)
    return (4 * (position * _GOLDEN_RATIO % 1) - 2).float().view(1, channels, height, width)


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the Euclidean distance of representations [d], as a share of the norm of the expected one."""
    found, expected = found.double().cpu(), expected.double().cpu()
    return float((found - expected).norm() / expected.norm())
