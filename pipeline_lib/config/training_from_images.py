"""Recipes that train a network from images."""

from __future__ import annotations

from pydantic import Field, model_validator

from pipeline_lib.config.features import Augmentation, Device, Precision
from pipeline_lib.config.section import RangeOfShares, Section, Seed


class ClassifierTraining(Section):
    """The recipe of a plain classifier of the upstream classes."""

    epochs: int = Field(6, ge=1, description="Passes over the upstream training images.")
    batch_size: int = Field(128, ge=2, description="Images per optimiser step.")
    learning_rate: float = Field(0.002, gt=0, description="Peak rate of AdamW; cosine decay to zero.")
    weight_decay: float = Field(0.05, ge=0, description="Decoupled weight decay (none on biases and norms).")
    warmup_epochs: float = Field(0.5, ge=0, description="Epochs of linear warm-up.")
    scale: RangeOfShares = Field((0.08, 1.0), description="Share of the area that the random crop keeps.")
    horizontal_flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    color_jitter: float = Field(0.4, ge=0, description="Strength of brightness, contrast and saturation jitter.")
    seed: Seed = Field(0, description="Seed of initialisation, order and augmentation.")
    precision: Precision = Field("float32", description="bfloat16 = autocast; pays for convolutions on new CPUs.")
    device: Device = Field("auto", description="Where it is trained; auto = a GPU where there is one.")
    threads: int = Field(1, ge=1, le=1024, description="CPU threads.")


class TrainingFromImages(Augmentation):
    """What the recipes of joint training and of methods share: epochs, augmentation, and where to compute."""

    epochs: int = Field(32, ge=1, description="Passes over the upstream training images.")
    warmup_epochs: float = Field(0.5, ge=0, description="Epochs of linear warm-up.")
    precision: Precision = Field("float32", description="bfloat16 = autocast.")
    device: Device = Field("auto", description="Where to train; auto = a GPU where there is one.")
    threads: int = Field(1, ge=1, le=1024, description="CPU threads.")

    @model_validator(mode="after")
    def _warmup(self) -> TrainingFromImages:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be less than epochs {self.epochs}")
        return self
