"""How a method of the URL benchmark is trained from images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline_lib.config.training_from_images import TrainingFromImages


class MethodTraining(TrainingFromImages):
    """The recipe: linear warm-up and cosine per step; the best epoch by a validation metric is kept."""

    batch_size: int = Field(128, ge=2, description="Images per forward pass (for two crops, each counts once).")
    accumulation_steps: int = Field(1, ge=1, description="Forward passes per optimiser step.")
    optimizer: Literal["lamb", "adamw", "sgd"] = Field("lamb", description="Optimiser, from timm.")
    learning_rate: float = Field(
        1e-3,
        ge=0,
        description="Peak rate for 256 images a step; scaled by the square root of images / 256 (sgd: linearly). "
        "0 = evaluate only.",
    )
    warmup_learning_rate: float = Field(1e-6, ge=0, description="Rate at the start of the warm-up.")
    warmup_epochs: float = Field(5.0, ge=0, description="Epochs of linear warm-up.")
    weight_decay: float = Field(
        0.02, ge=0, description="Weight decay; none on biases, norms, single parameters and concentrations."
    )
    frozen: tuple[str, ...] = Field(
        (),
        description="Parts of the network that never move, by timm's names of modules or parameters, such as conv1, "
        "layer1.0 or cls_token: neither their parameters nor their BatchNorm statistics.",
    )
    clip_norm: float | None = Field(None, gt=0, description="Largest norm of the gradient; null = not clipped.")
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of a moving average of the weights, which is then kept; null = none.",
    )
    selection: Literal["auroc_correct", "r1", "top1", "last"] = Field(
        "auroc_correct", description="Validation metric whose best epoch is kept; last = the last epoch."
    )
