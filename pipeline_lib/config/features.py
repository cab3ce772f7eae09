"""`features`: how images become cached representations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline_lib.config.deteriorations import Deteriorations
from pipeline_lib.config.policies import Policy
from pipeline_lib.config.section import Name, PositiveRange, RangeOfShares, Section, Seed

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]
# Of every evaluated split; extracted together, each image decoded once.
EVALUATION_VIEWS = ("eval", "centre_crop")
RESERVED_VIEWS = (*EVALUATION_VIEWS, "deteriorations")


class Augmentation(Section):
    """timm's default training transform; the defaults are those of the paper's recipe."""

    scale: RangeOfShares = Field((0.08, 1.0), description="Range of the random crop's share of the image area.")
    ratio: PositiveRange = Field((3 / 4, 4 / 3), description="Range of the random crop's aspect ratio.")
    horizontal_flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    color_jitter: float = Field(
        0.4, ge=0, description="Strength of brightness, contrast and saturation jitter (0.4 = factors 0.6-1.4)."
    )
    color_jitter_probability: float | None = Field(
        None, ge=0, le=1, description="Probability of the jitter; null = always, which is timm's default."
    )
    interpolation: Literal["random", "bilinear", "bicubic"] = Field(
        "random", description="Resampling filter of the random crop; random = bilinear or bicubic."
    )


class DrawnAugmentation(Augmentation):
    """A random training augmentation: each draw is a pure function of (seed, epoch, sample_id)."""

    seed: Seed = Field(0, description="Seed of the augmentations.")
    policy: Policy | None = Field(None, description="A strong augmentation for a share of the draws; null = none.")


class AugmentedView(DrawnAugmentation):
    """A random training augmentation, drawn `epochs` times per image.

    The transform is timm's default training transform; the defaults below are the paper's recipe
    (appendix A of Pretrained Visual Uncertainties). Each draw is a pure function of
    (seed, epoch, sample_id), so more epochs only add to what is cached.
    """

    epochs: int = Field(7, ge=1, description="How many augmented epochs to cache.")


class CentreCrop(Section):
    """The deterioration behind `croppedHasBiggerUnc`: a centre crop, one fixed draw per image."""

    minimum: float = Field(0.1, gt=0, le=1, description="Smallest share of the side that is kept.")
    maximum: float = Field(0.75, gt=0, le=1, description="Largest share of the side that is kept.")
    seed: Seed = Field(0, description="Seed of the draw.")

    @model_validator(mode="after")
    def _range(self) -> CentreCrop:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} must not exceed maximum {self.maximum}")
        return self


class Features(Section):
    """Extraction and storage of representations."""

    format: Literal["zarr", "hdf5"] = Field("zarr", description="Storage of the cached arrays.")
    dtype: Literal["float16", "float32"] = Field("float16", description="Type of the stored representations.")
    precision: Precision = Field("float32", description="Type in which the backbone computes.")
    pixels: Literal["pil", "tensor"] = Field(
        "pil",
        description="On what training images are augmented: pil = Pillow's images, timm's bytes; tensor = torchvision's"
        " operations on tensors, twice as fast and on the GPU where there is one: the same draws, but resized pixels"
        " are rounded otherwise (docs/large_caches.md).",
    )
    device: Device = Field("auto", description="Where the backbone runs; auto = a GPU where there is one.")
    batch_size: int = Field(64, ge=1, description="Images per forward pass (the last batch is padded to it).")
    block_samples: int = Field(10_000, ge=1, description="Images per block; a block is one job.")
    block_epochs: int = Field(
        10, ge=1, description="Augmented epochs per block; an image is decoded once for all of them."
    )
    chunk_rows: int = Field(16_384, ge=1, description="Rows per storage chunk.")
    workers: int = Field(0, ge=0, description="Processes that decode and augment; 0 = in the job itself.")
    threads: int = Field(1, ge=1, le=1024, description="CPU threads of the forward pass.")
    centre_crop: CentreCrop = Field(CentreCrop(), description="The crop of the centre_crop view.")
    deteriorations: Deteriorations = Field(
        Deteriorations(), description="Strengths of the view deteriorations (Figure 6)."
    )
    views: dict[Name, AugmentedView] = Field(
        {"train": AugmentedView()}, description="Training augmentations by name; variants choose one."
    )

    @model_validator(mode="after")
    def _view_names(self) -> Features:
        for name in self.views:
            if name in RESERVED_VIEWS:
                raise ValueError(f"views.{name}: the name is taken by a built-in view")
        return self
