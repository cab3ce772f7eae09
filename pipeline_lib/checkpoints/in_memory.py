"""A network in memory as a backbone that jobs can read: its weights in a file, and what rebuilds it.

A timm network that timm rebuilds from its name becomes a backbone of kind `timm`, whose checkpoint loads by itself.
Any other is of kind `custom`: its factory, in a module that exists in this process alone, returns a copy of it, and
whoever loads the checkpoint passes the network.
"""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline_lib.backbones import timm as timm_kind
from pipeline_lib.backbones.likeness import TOLERANCE, distance, fixed_image
from pipeline_lib.backbones.weights import state_digest
from pipeline_lib.checkpoints.model import TimmRepresentation
from pipeline_lib.core.errors import PipelineError

MODULE = "network_in_memory"


def backbone_section(
    network: nn.Module, folder: Path, classifier: str | bool | None, data_config: dict[str, Any]
) -> dict[str, Any]:
    """Write the weights of a network and return its section of the config's `backbones`.

    Parameters
    ----------
    network
        Stays as it is.
    folder
        Where its weights go.
    classifier
        The layer whose input is the representation; False: the output is; None: found by `last_linear`.
    data_config
        `image_size`, `mean`, `std`, `interpolation`, `crop_pct`; a timm network that is rebuilt by its name has its
        own, but for the size.
    """
    state = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{state_digest(state)}.safetensors"
    if not weights.exists():
        save_file(state, weights)
    size = data_config["image_size"]
    if classifier is None and (known := _as_timm(network, weights, size)) is not None:
        return known
    module = types.ModuleType(MODULE)
    module.network = lambda: copy.deepcopy(network)  # type: ignore[attr-defined]  # a module has what it is given
    sys.modules[MODULE] = module
    layer = last_linear(network, (3, size, size)) if classifier is None else classifier
    return {
        "kind": "custom",
        "factory": f"{MODULE}:network",
        "checkpoint": str(weights),
        "classifier": layer,
        **data_config,
    }


def last_linear(network: nn.Module, input_size: Sequence[int]) -> str | bool:
    """Return the name of the linear layer whose output is the network's, or False."""
    found: list[tuple[str, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, _, output, name=name: found.append((name, output)))
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    was_training = network.training
    network.eval()
    try:
        device = next(network.parameters()).device
        with torch.inference_mode():
            output = network(fixed_image(input_size).to(device))
    except Exception as error:  # a network's own code can raise anything
        raise PipelineError(f"the network doesn't take images of {tuple(input_size)}: {error}") from None
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    last = found[-1] if found else None
    return last[0] if last is not None and isinstance(output, Tensor) and torch.equal(last[1], output) else False


def _as_timm(network: nn.Module, weights: Path, size: int) -> dict[str, Any] | None:
    """Return the section of kind `timm` that rebuilds a network, or None where that gives another one."""
    config = getattr(network, "pretrained_cfg", None) or {}
    classes = getattr(network, "num_classes", 0)
    section = {"kind": "timm", "model": config.get("architecture"), "checkpoint": str(weights), "image_size": size}
    section |= {"num_classes": classes} if classes else {"classifier": False}
    image = fixed_image((3, size, size))
    try:
        rebuilt = timm_kind.prepare(timm_kind.Options.model_validate(section)).network.eval()
        own = copy.deepcopy(network).cpu().eval()
        with torch.inference_mode():
            apart = distance(TimmRepresentation(rebuilt)(image)[0], TimmRepresentation(own)(image)[0])
    except Exception:  # no timm network, or one that was changed
        return None
    return section if apart <= TOLERANCE else None
