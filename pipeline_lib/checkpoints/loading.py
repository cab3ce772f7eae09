"""Checkpoints as models: from a folder or from the Hugging Face Hub."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from yaml import YAMLError

from pipeline_lib.backbones.base import DTYPES, Encoder, HookedEncoder
from pipeline_lib.backbones.likeness import TOLERANCE, distance, fixed_image
from pipeline_lib.backbones.networks import create_network
from pipeline_lib.backbones.weights import load_into, require_fit
from pipeline_lib.checkpoints.checkpoint import (
    BACKBONE_PREFIX,
    CARD,
    FIXED_REPRESENTATION,
    WEIGHTS,
    CheckpointConfig,
    head_prefix,
    quantiles_name,
    read_config,
)
from pipeline_lib.checkpoints.hub import local_folder
from pipeline_lib.checkpoints.model import PretrainedModel, TimmRepresentation, representation_of
from pipeline_lib.config import kinds
from pipeline_lib.config.faults import describe
from pipeline_lib.core.device import find_device
from pipeline_lib.core.errors import PipelineError, one_line, one_of
from pipeline_lib.heads.model import UncertaintyHead
from pipeline_lib.heads.rank_mean import QUANTILES

Backbone = str | nn.Module | Callable[..., nn.Module]


def load(
    checkpoint: str | Path,
    seeds: int | Sequence[int] | None = None,
    device: str | torch.device = "cpu",
    backbone: Backbone | None = None,
    precision: str = "float32",
    revision: str | None = None,
) -> PretrainedModel:
    """Return the model of a checkpoint, ready to use.

    Parameters
    ----------
    checkpoint
        A folder, or the id of a repository on the Hugging Face Hub (`owner/name`), which is downloaded once.
    seeds
        The heads to use; None = all. A single head gives its own uncertainty u, several are averaged by rank.
    device
        One of torch's, or `auto`: a GPU where there is one.
    backbone
        Needed where the checkpoint holds heads alone and their backbone is on no hub, or where the backbone is of
        kind `custom`. It is the name of a timm model, whose pretrained weights come from timm's hub; or your network;
        or a function that returns it, which is called with the arguments that the checkpoint names, if it takes them.
        The network gets the checkpoint's weights where it holds them, else it keeps its own. It becomes a part of the
        model: it is frozen, and its mode, type and device change in place, so pass a copy if you need it elsewhere.
        The representation of a custom backbone is what enters the classifier layer that it was made with, or the
        output where that is null; that of any other timm network is taken before the classifier; any other network
        must return representations [n, d].
    precision
        `float32`, or `bfloat16` for the backbone alone.
    revision
        Branch, tag or commit on the Hub.

    Raises
    ------
    PipelineError
        For a folder that is no checkpoint, damaged files, seeds that it doesn't have, and a backbone that is missing,
        doesn't fit, or gives other representations than the one that the heads were trained on (see
        `pipeline_lib.backbones.likeness`).
    """
    if precision not in DTYPES:
        raise PipelineError(f"precision '{precision}' is unknown; allowed: {one_of(DTYPES)}")
    found_device = find_device(str(device))
    directory = local_folder(checkpoint, revision)
    config = read_config(directory)
    tensors = _tensors(directory / WEIGHTS)
    weights = _with_prefix(tensors, BACKBONE_PREFIX) if config.backbone.included else None
    representation = _representation(config, weights, backbone, directory)
    chosen = _chosen_seeds(config, seeds, directory)
    heads = {seed: _head(config, _with_prefix(tensors, head_prefix(seed)), directory) for seed in chosen}
    quantiles = None
    if config.heads.quantiles_of is not None:
        quantiles = torch.stack([_tensor(tensors, quantiles_name(seed), QUANTILES, directory) for seed in chosen])
    if backbone is not None or weights is None:
        expected = _tensor(tensors, FIXED_REPRESENTATION, config.backbone.dim, directory)
        _require_likeness(representation, expected, config)
    card = _card(directory / CARD)
    return PretrainedModel(representation, heads, quantiles, config, card, precision).to(found_device)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise PipelineError(f"{path}: can't be read ({error}); export or download it again") from None


def _tensor(tensors: dict[str, Tensor], name: str, length: int, directory: Path) -> Tensor:
    found = tensors.get(name)
    if found is None or found.shape != (length,) or not found.isfinite().all():
        raise PipelineError(f"{directory / WEIGHTS}: '{name}' must be {length} numbers; export or download it again")
    return found


def _card(path: Path) -> ModelCard:
    try:
        return ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    except (ValueError, TypeError, AttributeError, YAMLError) as error:
        raise PipelineError(f"{path}: is no model card ({one_line(error)}); export or download it again") from None


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names have a prefix, which is removed."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _chosen_seeds(config: CheckpointConfig, seeds: int | Sequence[int] | None, directory: Path) -> tuple[int, ...]:
    given = (seeds,) if isinstance(seeds, int) else seeds
    chosen = config.heads.seeds if given is None else tuple(given)
    missing = [seed for seed in chosen if seed not in config.heads.seeds]
    if missing or not chosen or len(set(chosen)) != len(chosen):
        raise PipelineError(
            f"{directory}: seeds {list(chosen)} were asked for, but it has {list(config.heads.seeds)}; name one or "
            "several of these, each once"
        )
    if len(chosen) > 1 and config.heads.quantiles_of is None:
        raise PipelineError(f"{directory}: has no quantiles to average several heads by rank; choose one of its seeds")
    return chosen


def _head(config: CheckpointConfig, weights: dict[str, Tensor], directory: Path) -> UncertaintyHead:
    widths = (config.backbone.dim, *config.heads.hidden, 1)
    # Compared with what the file holds before anything of these sizes is made.
    shapes = {
        f"layers.{number}.{name}": shape
        for number, (given, made) in enumerate(itertools.pairwise(widths))
        for name, shape in (("weight", (made, given)), ("bias", (made,)))
    }
    require_fit(shapes, weights, directory / WEIGHTS)
    head = UncertaintyHead(config.backbone.dim, config.heads.hidden)
    load_into(head, weights, directory / WEIGHTS)
    return head


def _representation(
    config: CheckpointConfig, weights: dict[str, Tensor] | None, backbone: Backbone | None, directory: Path
) -> nn.Module:
    """Return the module that maps images to representations, with its weights."""
    path = directory / WEIGHTS
    if backbone is None:
        encoder = _encoder(config, weights, directory)
        if weights is not None:
            load_into(encoder.network, weights, path)
        return representation_of(encoder)
    if isinstance(backbone, str):
        return representation_of(_timm_encoder(backbone, config))
    options = config.backbone.options
    network = backbone if isinstance(backbone, nn.Module) else _made_by(backbone, options.get("arguments") or {})
    if weights is not None:
        load_into(network, weights, path)
    if config.backbone.is_custom:
        layer = options.get("classifier")
        if not layer:
            return network
        if layer in dict(network.named_modules()):
            return representation_of(HookedEncoder(network, layer))
    is_timm = hasattr(network, "forward_features") and hasattr(network, "forward_head")
    return TimmRepresentation(network) if is_timm else network


def _made_by(function: Callable[..., nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
    """Call the function with the arguments of the checkpoint if it takes them, else without any."""
    for given in (arguments, {}):
        try:
            inspect.signature(function).bind(**given)
        except (TypeError, ValueError):
            continue
        network = function(**given)
        if not isinstance(network, nn.Module):
            raise PipelineError(f"backbone: the function returned {type(network).__name__}, not a torch.nn.Module")
        return network
    raise PipelineError(
        f"backbone: {getattr(function, '__name__', repr(function))} is no function that takes the arguments of the "
        f"checkpoint, {dict(arguments)}, or none; pass the function that made the backbone, or the network"
    )


def _encoder(config: CheckpointConfig, weights: dict[str, Tensor] | None, directory: Path) -> Encoder:
    """Return the encoder that the config describes: the architecture alone, or with the weights of timm's hub.

    weights: what it has to take, whose number bounds what is built.
    """
    given = config.backbone.options
    if config.backbone.is_custom:
        # A name in a downloaded file must not decide which code runs.
        raise PipelineError(
            f"{directory}: its backbone comes from the function '{given.get('factory')}' with the arguments "
            f"{given.get('arguments')}; pass that function, or the network, as load(..., backbone=...), or "
            "on the command line as --backbone MODULE:FUNCTION --code-dir FOLDER"
        )
    kind = kinds.load("backbones", str(given.get("kind")))
    try:
        options = kind.Options.model_validate(given)
    except ValidationError as error:
        raise PipelineError(f"{directory}: backbone.options: {describe(error, kind.Options)}") from None
    architecture = getattr(options, "model", None) or options.architecture
    if ":" in architecture:
        # timm would build what a file on the hub or on this machine describes.
        raise PipelineError(
            f"{directory}: its backbone is '{architecture}', which is none of timm's own architectures; if you trust "
            "it, pass that name as load(..., backbone=...) or --backbone"
        )
    if weights is not None:
        with torch.device("meta"):  # which takes no memory
            network = create_network(architecture, config.backbone.num_classes, options.image_size)
        needed = sum(parameter.numel() for parameter in network.parameters())
        if needed > (held := sum(value.numel() for value in weights.values())):
            raise PipelineError(
                f"{directory}: its backbone '{architecture}' has {needed:,} parameters, but {WEIGHTS} holds {held:,} "
                "numbers of it; export or download it again"
            )
        return kind.build(options, config.backbone.num_classes)
    if not config.backbone.is_on_hub:
        raise PipelineError(
            f"{directory}: holds heads alone, and their backbone '{config.backbone.name}' is on no hub (its weights "
            f"have the SHA-256 {config.backbone.weights_sha256[:16]}...); pass it as load(..., backbone=...) "
            "or --backbone, or export it with export.backbone: true"
        )
    return kind.prepare(options)


def _timm_encoder(name: str, config: CheckpointConfig) -> Encoder:
    kind = kinds.load("backbones", "timm")
    options: dict[str, Any] = {"kind": "timm", "model": name, "image_size": config.backbone.data_config.input_size[1]}
    try:
        return kind.prepare(kind.Options.model_validate(options))
    except ValidationError as error:
        raise PipelineError(f"backbone: {describe(error, kind.Options)}") from None


def _require_likeness(representation: nn.Module, expected: Tensor, config: CheckpointConfig) -> None:
    """Compare a backbone from elsewhere with the one that the heads were trained on, by their view of one image."""
    backbone = config.backbone
    # In float32, whatever the precision will be.
    device = next(representation.parameters(), expected).device
    with torch.inference_mode():
        found = representation.eval().float()(fixed_image(backbone.data_config.input_size).to(device))
    if not isinstance(found, Tensor) or found.shape != (1, backbone.dim):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise PipelineError(
            f"backbone: gives {shape} for one image, but the heads were trained on representations of width "
            f"{backbone.dim}; choose the backbone '{backbone.name}' that they were trained on"
        )
    if not (apart := distance(found[0], expected)) <= TOLERANCE:
        raise PipelineError(
            f"backbone: its representation of a fixed image is {apart:.0%} away from that of the backbone "
            f"'{backbone.name}' that the heads were trained on; give it those weights (SHA-256 "
            f"{backbone.weights_sha256[:16]}...), or export the checkpoint with export.backbone: true"
        )
