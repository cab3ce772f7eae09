"""What every recipe that trains a network from images has."""

from __future__ import annotations

from pydantic import Field, model_validator

from pipeline_lib.config.features import Augmentation, Device, Precision


class TrainingFromImages(Augmentation):
    """Epochs with a linear warm-up, the augmentation, and where to compute."""

    epochs: int = Field(32, ge=1, description="Passes over the upstream training images.")
    warmup_epochs: float = Field(0.5, ge=0, description="Epochs of linear warm-up.")
    precision: Precision = Field("float32", description="bfloat16 = autocast.")
    device: Device = Field("auto", description="Where to train; auto = a GPU where there is one.")
    threads: int = Field(1, ge=1, description="CPU threads.")

    @model_validator(mode="after")
    def _warmup(self) -> TrainingFromImages:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be less than epochs {self.epochs}")
        return self
