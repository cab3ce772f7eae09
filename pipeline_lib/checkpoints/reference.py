"""Checkpoints of the papers' own code (`.pth.tar`) as checkpoints of ours.

Such a file has a `state_dict` with the weights of a timm model below `model.` (or without a prefix) and the linear
layers of the head below `unc_module.`, in order, numbered together with the activations between them. Beside it are
`arch`, `args`, `epoch` and the optimiser's state.

The reference's head is softplus(...) + 0.000001, times a scale that its training sets and doesn't save. Neither changes
the order of images, so ours is the softplus alone.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor

from pipeline_lib.backbones import timm as timm_kind
from pipeline_lib.backbones.architectures import check_architecture
from pipeline_lib.backbones.likeness import fixed_image
from pipeline_lib.backbones.weights import load_into, read_state_dict
from pipeline_lib.checkpoints.card import model_card
from pipeline_lib.checkpoints.checkpoint import (
    BACKBONE_PREFIX,
    FIXED_REPRESENTATION,
    BackboneConfig,
    DataConfig,
    HeadsConfig,
    head_prefix,
    write_checkpoint,
)
from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import PipelineError

STAGE = "convert_reference"
_MODEL, _HEAD = "model.", "unc_module."
_LINEAR = re.compile(r"(?:unc_module\.)+(\d+)\.(weight|bias)")


def convert_reference(file: Path, architecture: str, directory: Path, include_backbone: bool = True) -> None:
    """Write a checkpoint of ours from one of the reference code.

    Parameters
    ----------
    file
        The `.pth.tar` file, read without running code from it.
    architecture
        timm's name of the backbone, such as `vit_base_patch16_224.augreg_in21k`; its data config says how images
        must look.
    directory
        Where the checkpoint goes.
    include_backbone
        Whether it holds the backbone's weights too.

    Raises
    ------
    PipelineError
        For a file without an uncertainty module or with one of another kind, and for a backbone of another
        architecture.
    """
    try:
        check_architecture(architecture)
    except ValueError as error:
        raise PipelineError(f"--architecture: {error}") from None
    state = _read(file)
    prefix = _MODEL if any(name.startswith(_MODEL) for name in state) else ""
    head = {name: value for name, value in state.items() if name.startswith(_HEAD)}
    weights = {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name not in head and name.startswith(prefix)
    }
    others = sorted(state.keys() - head.keys() - {prefix + name for name in weights})
    if not head or others:
        found = f"keys such as '{others[0]}'" if others else "no uncertainty module (keys 'unc_module.*')"
        raise PipelineError(
            f"checkpoint {file}: has {found}; only models with the plain prediction network (--unc-module=pred-net) "
            "have what a head needs"
        )
    layers = _layers(head, file)
    classes = _classes(weights, architecture, file)
    options = timm_kind.Options(kind="timm", model=architecture, num_classes=classes)
    encoder = timm_kind.build(options, classes).eval()
    load_into(encoder.network, weights, file)
    data_config = DataConfig.model_validate(timm_kind.data_config(options, encoder))
    with torch.inference_mode():
        embedding, _ = encoder(fixed_image(data_config.input_size))
    dim = embedding.shape[1]
    if layers[0][0].shape[1] != dim:
        raise PipelineError(
            f"checkpoint {file}: its uncertainty module reads {layers[0][0].shape[1]} numbers, but {architecture} "
            f"gives {dim}; only modules on the representation can be converted"
        )
    backbone = BackboneConfig(
        name=architecture,
        options=options.model_dump(mode="json") | {"checkpoint": Path(file).name},
        dim=dim,
        num_classes=classes,
        parameters=sum(parameter.numel() for parameter in encoder.network.parameters()),
        data_config=data_config,
        weights_sha256=artefacts.file_sha256(file),
        included=include_backbone,
    )
    heads = HeadsConfig(
        variant="reference",
        hidden=tuple(len(bias) for _, bias in layers[:-1]),
        seeds=(0,),
        training={"checkpoint_of_the_reference_code": Path(file).name},
        quantiles_of=None,
    )
    arrays = {
        f"{head_prefix(0)}layers.{index}.{name}": value
        for index, layer in enumerate(layers)
        for name, value in zip(("weight", "bias"), layer, strict=True)
    }
    arrays[FIXED_REPRESENTATION] = embedding[0].numpy()
    if include_backbone:
        arrays |= {f"{BACKBONE_PREFIX}{name}": value.numpy() for name, value in encoder.network.state_dict().items()}
    spec = {"file_sha256": backbone.weights_sha256, "architecture": architecture, "include_backbone": include_backbone}
    with artefacts.writing(directory, STAGE, spec) as draft:
        write_checkpoint(draft.path, backbone, heads, arrays, model_card(backbone, heads, None, []))


def _read(file: Path) -> dict[str, Tensor]:
    """Return the state dict, without the prefix that parallel training gives its names.

    Beside it may stand the arguments of the training script (a Namespace) and the metric of the best epoch (a NumPy
    scalar). Both are built from data alone, so unpickling them runs no code from the file.
    """
    dtypes: list[type] = [np.dtype, *(type(np.dtype(name)) for name in ("float32", "float64", "int64"))]
    # NumPy's function that builds a scalar; since NumPy 2 it is in another module.
    scalar: Any = np.float64(0).__reduce__()[0]
    with torch.serialization.safe_globals(
        [argparse.Namespace, *dtypes, scalar, (scalar, "numpy.core.multiarray.scalar")]
    ):
        state = read_state_dict(file)
    return {name.removeprefix("module."): value for name, value in state.items()}


def _layers(head: Mapping[str, Tensor], file: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return weight [out, in] and bias [out] of each linear layer in order, float32."""
    found: dict[int, dict[str, np.ndarray]] = {}
    for name, value in head.items():
        match = _LINEAR.fullmatch(name)
        if match is None:
            raise PipelineError(f"checkpoint {file}: '{name}' is not a linear layer of a plain prediction network")
        found.setdefault(int(match[1]), {})[match[2]] = value.float().numpy()
    try:
        layers = [(found[index]["weight"], found[index]["bias"]) for index in sorted(found)]
    except KeyError as missing:
        raise PipelineError(f"checkpoint {file}: a layer of its uncertainty module has no {missing}") from None
    fits = all(len(bias) == weight.shape[1] for (_, bias), (weight, _) in itertools.pairwise(layers))
    if len(layers) < 2 or not fits or len(layers[-1][1]) != 1:
        shapes = ", ".join(str(tuple(weight.shape)) for weight, _ in layers)
        raise PipelineError(
            f"checkpoint {file}: its uncertainty module is not a chain of linear layers that ends in one number "
            f"(their shapes: {shapes})"
        )
    return layers


def _classes(weights: Mapping[str, Tensor], architecture: str, file: Path) -> int:
    """Return how many classes the backbone's classifier has."""
    config = get_pretrained_cfg(architecture)
    name = f"{config.classifier}.weight" if config else ""
    if name not in weights:
        raise PipelineError(
            f"checkpoint {file}: has no '{name}', so its backbone is no {architecture}; give the --architecture that "
            f"it was trained as (its first key is '{next(iter(weights), 'none')}')"
        )
    return len(weights[name])
