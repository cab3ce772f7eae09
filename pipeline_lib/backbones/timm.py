"""Backbone kind `timm`: a pretrained timm model, from its hub or from a local checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline_lib.backbones.architectures import check_architecture
from pipeline_lib.config.section import KindSection
from pipeline_lib.core.errors import PipelineError

if TYPE_CHECKING:
    from pipeline_lib.backbones.base import TimmEncoder


class Options(KindSection):
    """A pretrained timm model."""

    kind: Literal["timm"]
    model: str = Field(description="timm's model name, such as vit_tiny_patch16_224.augreg_in21k.")
    checkpoint: str | None = Field(
        None, description="Local weights (.safetensors or a torch state dict); null = timm downloads them."
    )
    key_prefix: str = Field("", description="Prefix of the checkpoint's keys that is to be removed.")
    classifier: bool = Field(
        True, description="false = the model has none, or it is left out: DINOv2, image towers of CLIP."
    )
    num_classes: int | None = Field(None, ge=1, description="Classes of the checkpoint; null = the model's default.")
    image_size: int | None = Field(None, ge=8, description="Side of the images in pixels; null = the model's default.")

    _known = field_validator("model")(check_architecture)

    @model_validator(mode="after")
    def _classes_of_a_classifier(self) -> Options:
        if not self.classifier and self.num_classes is not None:
            raise ValueError(f"num_classes is {self.num_classes}, but classifier is false; leave one of them out")
        return self


def watched_files(options: Options) -> list[Path]:
    """Return the local checkpoint, if there is one."""
    return [Path(options.checkpoint)] if options.checkpoint else []


def build(options: Options, num_classes: int | None) -> TimmEncoder:
    """Return the architecture with random weights; num_classes None = the model's default, 0 = no classifier."""
    return _create(options, num_classes, pretrained=False)


def prepare(options: Options) -> TimmEncoder:
    """Return the model with its pretrained weights."""
    num_classes = options.num_classes if options.classifier else 0
    if options.checkpoint is None:
        return _create(options, num_classes, pretrained=True)
    from pipeline_lib.backbones.headless import without_classifier
    from pipeline_lib.backbones.networks import in_timms_names
    from pipeline_lib.backbones.weights import load_into, read_state_dict

    encoder = build(options, num_classes)
    path = Path(options.checkpoint)
    state = in_timms_names(encoder.network, read_state_dict(path, options.key_prefix))
    if not options.classifier:
        state = without_classifier(state, encoder.network, path)
    load_into(encoder.network, state, path)
    return encoder


def data_config(options: Options, encoder: TimmEncoder) -> dict[str, Any]:
    """Return timm's data config of the model, at the configured image size."""
    from pipeline_lib.backbones import networks

    return networks.data_config(encoder.network, options.image_size)


def _create(options: Options, num_classes: int | None, pretrained: bool) -> TimmEncoder:
    from pipeline_lib.backbones.base import TimmEncoder
    from pipeline_lib.backbones.networks import create_network

    try:
        network = create_network(options.model, num_classes, options.image_size, pretrained)
        return TimmEncoder(network, options.classifier)
    except PipelineError:
        raise
    except Exception as error:  # a hub failure can be any of a dozen types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        advice = "; without network access, set checkpoint to a local file" if pretrained else ""
        raise PipelineError(f"timm can't create '{options.model}': {reason}{advice}") from None
