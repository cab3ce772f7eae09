"""Backbone kind `trained`: a timm architecture, trained here on the upstream dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from pipeline_lib.backbones.architectures import check_architecture
from pipeline_lib.config.features import Device, Precision
from pipeline_lib.config.section import KindSection, RangeOfShares, Seed
from pipeline_lib.core.errors import PipelineError

if TYPE_CHECKING:
    from pipeline_lib.backbones.base import TimmEncoder
    from pipeline_lib.datasets.images import ImageDataset


class Options(KindSection):
    """A timm architecture and the recipe to train it as a classifier of the upstream classes."""

    kind: Literal["trained"]
    architecture: str = Field(description="timm's name of the architecture.")
    image_size: int = Field(64, ge=8, description="Side of the images in pixels.")
    epochs: int = Field(6, ge=1, description="Passes over the upstream training images.")
    batch_size: int = Field(128, ge=1, description="Images per optimiser step.")
    learning_rate: float = Field(0.002, gt=0, description="Peak rate of AdamW; cosine decay to zero.")
    weight_decay: float = Field(0.05, ge=0, description="Decoupled weight decay (none on biases and norms).")
    warmup_epochs: float = Field(0.5, ge=0, description="Epochs of linear warm-up.")
    scale: RangeOfShares = Field((0.08, 1.0), description="Share of the area that the random crop keeps.")
    horizontal_flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    color_jitter: float = Field(0.4, ge=0, description="Strength of brightness, contrast and saturation jitter.")
    seed: Seed = Field(0, description="Seed of initialisation, order and augmentation.")
    precision: Precision = Field("float32", description="bfloat16 = autocast; pays for convolutions on new CPUs.")
    device: Device = Field("auto", description="Where it is trained; auto = a GPU where there is one.")
    threads: int = Field(1, ge=1, description="CPU threads.")

    _known = field_validator("architecture")(check_architecture)


def watched_files(options: Options) -> list[Path]:
    """Return nothing: the weights are made here."""
    return []


def build(options: Options, num_classes: int | None) -> TimmEncoder:
    """Return the architecture with random weights for `num_classes` classes."""
    import timm

    from pipeline_lib.backbones.base import TimmEncoder
    from pipeline_lib.backbones.timm import fixed_input_size

    size = {"img_size": options.image_size} if fixed_input_size(options.architecture) else {}
    return TimmEncoder(timm.create_model(options.architecture, pretrained=False, num_classes=num_classes, **size))


def prepare(
    options: Options, upstream: ImageDataset | None, on_epoch: Callable[[dict[str, float]], None]
) -> TimmEncoder:
    """Return the model, trained on the upstream images."""
    import torch

    from pipeline_lib.backbones.trainer import train_classifier

    if upstream is None:
        raise PipelineError(f"backbone kind 'trained' ({options.architecture}) needs the upstream dataset to train on")
    torch.manual_seed(options.seed)
    encoder = build(options, len(upstream.classes))
    train_classifier(encoder.network, upstream, options, data_config(options, encoder), on_epoch)
    return encoder


def data_config(options: Options, encoder: TimmEncoder) -> dict[str, Any]:
    """Return timm's data config at the trained image size; nothing is cut off at evaluation."""
    from timm.data import resolve_model_data_config

    size = (3, options.image_size, options.image_size)
    config = resolve_model_data_config(encoder.network, args={"input_size": size, "crop_pct": 1.0})
    return {key: config[key] for key in ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")}
