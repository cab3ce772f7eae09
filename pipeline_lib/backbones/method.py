"""Backbone kind `method`: a timm architecture, trained by a method of the URL benchmark, with its own uncertainty."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator

from pipeline_lib.backbones.architectures import check_architecture
from pipeline_lib.config import kinds
from pipeline_lib.config.method_training import MethodTraining
from pipeline_lib.config.section import KindSection, Seed

if TYPE_CHECKING:
    from pipeline_lib.backbones.base import MethodEncoder
    from pipeline_lib.methods.base import Method


class Options(KindSection):
    """An architecture, the method that trains it, and the recipe."""

    kind: Literal["method"]
    architecture: str = Field(description="timm's name of the architecture, such as resnet50.")
    pretrained: bool = Field(False, description="Start from timm's pretrained weights (downloaded once).")
    checkpoint: str | None = Field(
        None,
        description="Start from local weights (.safetensors or a torch state dict), with a classifier of the upstream "
        "classes.",
    )
    image_size: int = Field(224, ge=8, description="Side of the images in pixels.")
    method: Annotated[SerializeAsAny[KindSection], kinds.dispatched("methods", "method")] = Field(
        description="The method: its `kind` and what differs from its own defaults."
    )
    training: MethodTraining = Field(MethodTraining(), description="The recipe.")
    seed: Seed = Field(0, description="Seed of initialisation, order, augmentation and samples.")

    _known = field_validator("architecture")(check_architecture)


def watched_files(options: Options) -> list[Path]:
    """Return the local checkpoint that training starts from, if there is one."""
    return [Path(options.checkpoint)] if options.checkpoint else []


def build(options: Options, num_classes: int | None) -> MethodEncoder:
    """Return the model with random weights for `num_classes` classes."""
    from pipeline_lib.backbones.base import MethodEncoder

    return MethodEncoder(create(options, num_classes, pretrained=False))


def data_config(options: Options, encoder: MethodEncoder) -> dict[str, Any]:
    """Return timm's data config at the trained image size; nothing is cut off at evaluation."""
    from pipeline_lib.backbones import networks

    return networks.data_config(encoder.network.network, options.image_size, crop_pct=1.0)


def create(options: Options, num_classes: int | None, pretrained: bool) -> Method:
    """Return the method's model around a timm network, whose weights are random or, where asked for, pretrained.

    timm's pretrained weights keep their classifier where it has `num_classes` outputs, else it is a new one. A local
    `checkpoint` has to fit the whole network, with a classifier of `num_classes` outputs; `PipelineError` otherwise.
    """
    import torch

    from pipeline_lib.backbones.networks import create_network
    from pipeline_lib.backbones.weights import load_into, read_state_dict

    torch.manual_seed(options.seed)
    network = create_network(options.architecture, num_classes, options.image_size, pretrained and options.pretrained)
    if pretrained and options.checkpoint:
        path = Path(options.checkpoint)
        load_into(network, read_state_dict(path, ""), path)
    return kinds.load("methods", options.method.kind).Model(options.method, network, num_classes)
