"""A checkpoint: a folder with everything that rebuilds the model, and no code.

- `model.safetensors`: of each head `heads.seed<k>.layers.<i>.weight` and `.bias`, float32, and `quantiles.seed<k>`
  [1001], float32, which turn its uncertainties into ranks; `fixed_representation` [d], float32, the representation of a
  fixed image, by which a backbone from elsewhere is recognised; and each of the backbone's weights, `backbone.<name>`,
  where it is included;
- `config.json`: the architecture, how images must look, the heads' widths and seeds (`CheckpointConfig`);
- `README.md`: the model card;
- `manifest.json`: what it was made from, and the checksums by which a damaged `config.json` is noticed; without it a
  checkpoint can be read all the same.

This module writes and reads it without torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError
from safetensors.numpy import save_file

from pipeline_lib.config.faults import describe
from pipeline_lib.config.section import Section
from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.recognise import misnamed

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FILES = (CONFIG, WEIGHTS, CARD)
BACKBONE_PREFIX = "backbone."
FIXED_REPRESENTATION = "fixed_representation"
_REMEDY = "export or download it again"


# A config comes from anywhere: bounds keep one that is damaged or malicious from filling the memory.
_Side = Annotated[int, Field(ge=1, le=4096)]
_Channels = Annotated[int, Field(ge=3, le=3)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Deviation = Annotated[float, Field(gt=0, le=1)]
_Width = Annotated[int, Field(ge=1, le=2**17)]


class DataConfig(Section):
    """How images must look, in timm's terms."""

    input_size: tuple[_Channels, _Side, _Side] = Field(description="Channels, height, width.")
    mean: tuple[_Share, _Share, _Share] = Field(description="Mean per channel, of [0, 1].")
    std: tuple[_Deviation, _Deviation, _Deviation] = Field(description="Standard deviation per channel.")
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = Field(description="Resampling filter.")
    crop_pct: float = Field(gt=0, le=1, description="Share of the resized image that the centre crop keeps.")
    crop_mode: Literal["center", "squash", "border"] = Field(description="timm's name of the crop.")


class BackboneConfig(Section):
    """The backbone: what rebuilds it, and which weights it has."""

    name: str = Field(description="Its name in the world that made it.")
    options: dict[str, Any] = Field(description="Its config section, without paths of the machine that made it.")
    dim: _Width = Field(description="Width of the representation.")
    num_classes: int = Field(ge=0, le=2**20, description="Outputs of its classifier.")
    parameters: int = Field(ge=1, description="Number of its parameters, the classifier's included.")
    data_config: DataConfig = Field(description="How images must look.")
    weights_sha256: str = Field(description="SHA-256 of the weights that the heads were trained on.")
    included: bool = Field(description="Whether model.safetensors holds them.")

    @property
    def is_custom(self) -> bool:
        """Whether the network comes from the user's own code."""
        return self.options.get("kind") == "custom"

    @property
    def is_on_hub(self) -> bool:
        """Whether timm gets the weights from a hub, so that `load` finds a backbone that isn't included."""
        return self.options.get("kind") == "timm" and not self.options.get("checkpoint")


class HeadsConfig(Section):
    """The uncertainty heads of a variant, one per seed."""

    variant: str = Field(description="Name of the variant.")
    hidden: tuple[_Width, ...] = Field(min_length=1, max_length=64, description="Widths of the hidden layers.")
    seeds: tuple[int, ...] = Field(min_length=1, max_length=10_000, description="One head per seed.")
    training: dict[str, Any] = Field(description="How they were trained.")
    quantiles_of: str | None = Field(
        description="The set whose uncertainties the quantiles were taken from; null = there are none."
    )


class CheckpointConfig(Section):
    """config.json."""

    format: Literal["pretrained-visual-uncertainties/1"] = Field(description="What this is, and its version.")
    backbone: BackboneConfig = Field(description="The backbone.")
    heads: HeadsConfig = Field(description="The heads.")
    weights_sha256: str = Field(description="SHA-256 of model.safetensors.")


def head_prefix(seed: int) -> str:
    """Return the prefix of the names of a head's weights."""
    return f"heads.seed{seed}."


def quantiles_name(seed: int) -> str:
    """Return the name of the quantiles of a head's uncertainty."""
    return f"quantiles.seed{seed}"


def write_checkpoint(
    directory: Path, backbone: BackboneConfig, heads: HeadsConfig, arrays: Mapping[str, np.ndarray], card: str
) -> None:
    """Write the files of a checkpoint into an existing folder; `arrays` are named as at the top of this module."""
    save_file(dict(arrays), directory / WEIGHTS)
    config = CheckpointConfig(
        format="pretrained-visual-uncertainties/1",
        backbone=backbone,
        heads=heads,
        weights_sha256=artefacts.file_sha256(directory / WEIGHTS),
    )
    (directory / CONFIG).write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (directory / CARD).write_text(card, encoding="utf-8")


def read_config(directory: Path) -> CheckpointConfig:
    """Read `config.json`, and compare it with the manifest, if there is one, and the weights with the checksum in it.

    Raises
    ------
    PipelineError
        When the folder is no checkpoint, or a file of it is missing or damaged.
    """
    path = directory / CONFIG
    for name in FILES:
        if not (directory / name).is_file():
            raise PipelineError(
                f"{directory}: is no checkpoint, it has no {name}; name a folder that `python -m pipeline_lib export` "
                "(or convert_reference) wrote"
            )
    try:
        config = CheckpointConfig.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise PipelineError(f"{path}: {describe(error, CheckpointConfig)}") from None
    except (ValueError, RecursionError) as error:
        raise PipelineError(f"{path}: damaged (not JSON: {error}); {_REMEDY}") from None
    if (directory / artefacts.MANIFEST).exists():
        manifest = artefacts.read(directory, verify=False, remedy=_REMEDY)
        if manifest.files.get(CONFIG, {}).get("xxh3_128") != artefacts.file_digest(path):
            raise PipelineError(f"{path}: damaged or edited (its checksum is not the manifest's); {_REMEDY}")
    if artefacts.file_sha256(directory / WEIGHTS) != config.weights_sha256:
        wrong = misnamed(directory / WEIGHTS) or f"damaged (its SHA-256 is not the one in {CONFIG}); {_REMEDY}"
        raise PipelineError(f"{directory / WEIGHTS}: {wrong}")
    return config
