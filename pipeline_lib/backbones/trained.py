"""Backbone kind `trained`: a timm architecture, trained on the upstream dataset by the stage `backbone`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from pipeline_lib.backbones.architectures import check_architecture
from pipeline_lib.config.section import KindSection
from pipeline_lib.config.training_from_images import ClassifierTraining

if TYPE_CHECKING:
    from pipeline_lib.backbones.base import TimmEncoder


class Options(ClassifierTraining, KindSection):
    """A timm architecture and the recipe to train it as a classifier of the upstream classes."""

    kind: Literal["trained"]
    architecture: str = Field(description="timm's name of the architecture.")
    image_size: int = Field(64, ge=8, description="Side of the images in pixels.")

    _known = field_validator("architecture")(check_architecture)


def watched_files(options: Options) -> list[Path]:
    """Return nothing: the weights are made here."""
    return []


def build(options: Options, num_classes: int | None) -> TimmEncoder:
    """Return the architecture with random weights for `num_classes` classes."""
    from pipeline_lib.backbones.base import TimmEncoder
    from pipeline_lib.backbones.networks import create_network

    return TimmEncoder(create_network(options.architecture, num_classes, options.image_size))


def data_config(options: Options, encoder: TimmEncoder) -> dict[str, Any]:
    """Return timm's data config at the trained image size; nothing is cut off at evaluation."""
    from pipeline_lib.backbones import networks

    return networks.data_config(encoder.network, options.image_size, crop_pct=1.0)
