"""Networks without a classifier: what their representation is, and what of a checkpoint they leave out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline_lib.backbones.base import Encoder
from pipeline_lib.backbones.likeness import fixed_image

_SHOWN = 8
_OF_TRAINING = ("decoder", "mask_token")
# Outputs of common classifiers: a last layer as wide as one of them is one.
_CLASSES = frozenset({10, 100, 200, 365, 1000, 10450, 11221, 11821, 21841, 21842, 21843})


def without_classifier(state: Mapping[str, Tensor], network: nn.Module, path: Path) -> dict[str, Tensor]:
    """Return a state dict without the keys of linear layers that the network doesn't have; says which these are.

    Left out are the weight [classes, d] and the bias [classes] of a layer of which the network has neither, and what a
    masked autoencoder was trained with (`decoder*`, `mask_token`). Other keys stay, and don't fit.
    """
    own = network.state_dict()
    if any(name not in state and not name.endswith("num_batches_tracked") for name in own):
        return dict(state)  # of another network, or under other names: what is left out would only confuse
    layers = {name.rpartition(".")[0] for name in own}
    unused = [
        name
        for name in state
        if (name.startswith(_OF_TRAINING) and name not in own)
        or (name.rpartition(".")[0] not in layers and _is_of_linear_layer(name, state))
    ]
    if unused:
        shown = ", ".join(sorted(unused)[:_SHOWN]) + (", ..." if len(unused) > _SHOWN else "")
        print(f"{path}: {len(unused)} keys are of a classifier or decoder that is not used, and left out: {shown}")
    return {name: values for name, values in state.items() if name not in unused}


def _is_of_linear_layer(name: str, state: Mapping[str, Tensor]) -> bool:
    layer, _, part = name.rpartition(".")
    weight = state.get(f"{layer}.weight")
    siblings = {other for other in state if other.startswith(f"{layer}.")}
    return (
        part in ("weight", "bias")
        and weight is not None
        and weight.ndim == 2
        and siblings <= {f"{layer}.weight", f"{layer}.bias"}
    )


def describe_representation(encoder: Encoder, arguments: Mapping[str, object], input_size: tuple[int, int, int]) -> str:
    """Return which layer's output the representation of a network without a classifier is, and how wide it is.

    Warns where that layer looks like a classifier: linear, and as wide as a common number of classes or an argument of
    the function that made the network.
    """
    last: list[tuple[str, nn.Module, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, _, output, name=name: last.append((name, layer, output)))
        for name, layer in encoder.network.named_modules()
        if not any(layer.children())
    ]
    encoder.network.eval()
    try:
        with torch.inference_mode():
            width = encoder(fixed_image(input_size))[0].shape[1]
    finally:
        for hook in hooks:
            hook.remove()
    name, layer, _ = last[-1]
    kind = type(layer).__name__
    said = f"the representation is the output of the network, {width} wide; its last layer is '{name}' ({kind})"
    if isinstance(layer, nn.Linear) and (width in _CLASSES or width in arguments.values()):
        print(
            f"WARNING: {said}, which looks like a classifier of {width} classes: what enters it is the better "
            f"representation (classifier: {name})",
            file=sys.stderr,
        )
    return said
