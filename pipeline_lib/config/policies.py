"""Augmentation policies: strong augmentations for a share of the training images.

They are the paper's negative results (Table 3 of Pretrained Visual Uncertainties, "for 50% of train data"). The paper
gives no strengths; the defaults are those of the works in which each augmentation was proposed, where there is one.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline_lib.config.section import PositiveRange, RangeOfShares, Section

# Policies that mix two images: what is drawn is neither of one class nor a view of one image.
MIXING_POLICIES = ("cutmix", "mixup")


class PolicyOptions(Section):
    """What every policy has."""

    probability: float = Field(
        0.5, ge=0, le=1, description="Share of the draws that the policy changes; the rest are plain."
    )


class AugMix(PolicyOptions):
    """timm's AugMix (Hendrycks et al., 2020) in place of the colour jitter: a mean of chains of operations."""

    kind: Literal["augmix"] = Field(description="AugMix in place of the colour jitter.")
    severity: int = Field(3, ge=1, le=10, description="Strength of the operations, of 10.")
    width: int = Field(3, ge=1, description="How many chains are averaged.")
    depth: int | None = Field(None, ge=1, description="Operations per chain; null = 1 to 3, drawn for each chain.")


class CutMix(PolicyOptions):
    """CutMix (Yun et al., 2019): a box of the image is another image's, and so is its share of the label."""

    kind: Literal["cutmix"] = Field(description="A box from another image of the split.")
    alpha: float = Field(
        1.0, gt=0, description="The own image's share of the area is drawn from Beta(alpha, alpha); 1 = uniform."
    )


class MixUp(PolicyOptions):
    """MixUp (Zhang et al., 2018): a weighted mean of two images and of their labels."""

    kind: Literal["mixup"] = Field(description="A weighted mean with another image of the split.")
    alpha: float = Field(
        0.2,
        gt=0,
        description="The own image's weight is drawn from Beta(alpha, alpha); 0.2 is the paper's on ImageNet.",
    )


class Blur(PolicyOptions):
    """Gaussian blur after the plain augmentation."""

    kind: Literal["blur"] = Field(description="A Gaussian blur of random strength.")
    radius: PositiveRange = Field(
        (0.005, 0.03), description="Range of the standard deviation, as a share of the shorter side."
    )


class SmallCrops(PolicyOptions):
    """The plain augmentation with smaller random crops."""

    kind: Literal["small_crops"] = Field(description="Small random crops.")
    scale: RangeOfShares = Field(
        (0.05, 0.25), description="Range of the crop's share of the image area (the default: DINO's local crops)."
    )


class BoxOverlay(PolicyOptions):
    """A grey box over the image after the plain augmentation."""

    kind: Literal["box_overlay"] = Field(description="A grey box at a random place.")
    area: RangeOfShares = Field((0.1, 0.5), description="Range of the share of the area that the box covers.")


Policy = Annotated[AugMix | CutMix | MixUp | Blur | SmallCrops | BoxOverlay, Field(discriminator="kind")]
