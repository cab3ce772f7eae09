"""`joint_training`: how a classifier and an uncertainty head are trained together (Figure 3 of the paper)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline_lib.config.features import Device, Precision
from pipeline_lib.config.section import Section


class Recipe(Section):
    """The recipe: backbone, classifier and head start from the pretrained backbone, and all of them learn."""

    epochs: int = Field(8, ge=1, description="Passes over the upstream training images.")
    batch_size: int = Field(128, ge=2, description="Images per optimiser step; even, since pairs are adjacent.")
    learning_rate: float = Field(1e-4, gt=0, description="Peak rate of AdamW for backbone and classifier.")
    head_learning_rate: float = Field(1e-3, gt=0, description="Peak rate of AdamW for the uncertainty head.")
    weight_decay: float = Field(0.05, ge=0, description="Decoupled weight decay (none on biases and norms).")
    warmup_epochs: float = Field(0.5, ge=0, description="Epochs of linear warm-up; then a cosine to zero.")
    loss: Literal["order", "squared_error"] = Field(
        "squared_error",
        description="Loss of the head: squared_error = predict the task loss (eq. 2), order = rank pairs (eq. 3, 4).",
    )
    margin: float = Field(0.1, ge=0, description="m of the order loss.")
    loss_weight: float = Field(1.0, ge=0, description="lambda, the weight of the head's loss beside the task loss.")
    hidden: tuple[int, ...] = Field((512, 512), min_length=1, description="Widths of the head's hidden layers.")
    scale: tuple[float, float] = Field((0.08, 1.0), description="Range of the random crop's share of the image area.")
    ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="Range of the random crop's aspect ratio.")
    horizontal_flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    color_jitter: float = Field(0.4, ge=0, description="Strength of brightness, contrast and saturation jitter.")
    color_jitter_probability: float | None = Field(
        None, ge=0, le=1, description="Probability of the jitter; null = always, which is timm's default."
    )
    interpolation: Literal["random", "bilinear", "bicubic"] = Field(
        "random", description="Resampling filter of the random crop; random = bilinear or bicubic."
    )
    precision: Precision = Field("float32", description="bfloat16 = autocast while training; never in an evaluation.")
    device: Device = Field("auto", description="Where it is trained; auto = a GPU where there is one.")
    threads: int = Field(1, ge=1, description="CPU threads of a training job.")

    @model_validator(mode="after")
    def _sensible(self) -> Recipe:
        if self.batch_size % 2:
            raise ValueError(f"batch_size is {self.batch_size}, but must be even: the order loss pairs adjacent images")
        if min(self.hidden) < 1:
            raise ValueError(f"hidden is {list(self.hidden)}, but each width must be 1 or more")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must satisfy 0 < low <= high <= 1, not {list(self.scale)}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must satisfy 0 < low <= high, not {list(self.ratio)}")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}, but must be less than epochs ({self.epochs})")
        return self
