"""Checkpoints from anywhere, without running code from them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline_lib.core.errors import PipelineError, one_of
from pipeline_lib.core.recognise import misnamed, require_no_pipe

# Where training scripts commonly put the weights inside a checkpoint.
_NESTED_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net", "teacher")


def read_state_dict(path: Path, key_prefix: str = "") -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file or a torch checkpoint (`weights_only`).

    Parameters
    ----------
    path
        The file.
    key_prefix
        Removed from the names that have it; where it is given, names without it are left out.

    Raises
    ------
    PipelineError
        The file is missing, damaged, or would run code on loading.
    """
    require_no_pipe(Path(path))
    if not Path(path).is_file():
        raise PipelineError(
            f"checkpoint {path}: {'is a folder, not a file' if Path(path).exists() else 'no such file'}"
        )
    if (wrong := misnamed(path)) is not None:
        raise PipelineError(f"checkpoint {path}: {wrong}")
    content: Any
    try:
        if str(path).endswith(".safetensors"):
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise PipelineError(
            f"checkpoint {path}: is damaged or holds more than tensors, and loading that could run code from the "
            "file; save its state dict alone (torch.save(network.state_dict(), ...))"
        ) from None
    except Exception as error:  # bytes that are no pickle can raise anything
        reason = (
            str(error).splitlines()[0] if isinstance(error, (SafetensorError, RuntimeError, OSError)) else "damaged"
        )
        raise PipelineError(f"checkpoint {path}: can't be read ({reason})") from None
    for key in _NESTED_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        found = f"; it has {one_of(list(map(str, content))[:8])}" if isinstance(content, dict) else ""
        raise PipelineError(f"checkpoint {path}: holds no state dict (a mapping from names to tensors){found}")
    if key_prefix:
        content = {
            name.removeprefix(key_prefix): value for name, value in content.items() if name.startswith(key_prefix)
        }
        if not content:
            raise PipelineError(f"checkpoint {path}: no key starts with the key_prefix '{key_prefix}'")
    return content


def load_into(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load a state dict that must fit exactly; raises `PipelineError` naming the first key that doesn't."""
    require_fit({name: tuple(value.shape) for name, value in network.state_dict().items()}, state, path)
    network.load_state_dict(state, strict=False)


def require_fit(own: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], path: Path) -> None:
    """Raise `PipelineError` unless a state dict has the names and shapes of a network's; own: these, by name."""
    # Checkpoints of early torch versions lack BatchNorm's counter of batches, which evaluation never reads.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    extra = [name for name in state if name not in own]
    shapes = [name for name in own if name in state and own[name] != tuple(state[name].shape)]
    if missing or extra or shapes:
        faults = []
        if shapes:
            name = shapes[0]
            faults.append(f"'{name}' has shape {tuple(state[name].shape)}, the network needs {own[name]}")
        if missing:
            faults.append(f"{len(missing)} keys of the network are missing, such as '{missing[0]}'")
        if extra:
            faults.append(f"{len(extra)} keys are not in the network, such as '{extra[0]}'")
        raise PipelineError(f"checkpoint {path} doesn't fit the network: {'; '.join(faults)}{_advice(own, state)}")


def _advice(own: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> str:
    """Return what would make a state dict fit, where that is known."""
    unfit = {name for name in own if name not in state or own[name] != tuple(state[name].shape)}
    layers = {name.rpartition(".")[0] for name in unfit}
    if len(layers) == 1:
        (layer,) = layers
        if unfit <= {f"{layer}.weight", f"{layer}.bias"}:
            weight = state.get(f"{layer}.weight")
            if weight is None:
                return "; if weights without a classifier are meant, set classifier: false (of fit, --classifier none)"
            return f"; if that is the classifier, set num_classes: {len(weight)} (of fit, --num-classes {len(weight)})"
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    first = needed[0] if needed else ""
    prefixes = [name.removesuffix(first) for name in state if name.endswith(f".{first}")]
    fitting = [
        prefix
        for prefix in prefixes
        if all(prefix + name in state and tuple(state[prefix + name].shape) == own[name] for name in needed)
    ]
    return f"; its keys begin with {' or '.join(map(repr, fitting))}: set that as key_prefix" if fitting else ""


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Return a checksum of the names, types, shapes and values of a state dict."""
    digest = xxhash.xxh3_128()
    for name, value in state.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
