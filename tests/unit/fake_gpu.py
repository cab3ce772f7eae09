"""A GPU without a GPU, for tests: torch's FakeTensorMode runs tensors that say `cuda`.

They have shapes, types and devices but no values, and an operation whose tensors lie on different devices fails as it
would on a GPU. Where code asks for a value (`float(x)`, `.tolist()`, `.numpy()` of what was copied to the CPU), it gets
ones.

Autograd asks CUDA's driver which stream an operation ran on, so gradients of `cuda` tensors need a GPU. It asks nobody
about the device `lazy`, which torch has for its lazy backend: what trains runs with that one in the place of `cuda`,
but without autocast, which doesn't know it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.optim import optimizer

from pipeline_lib.backbones import artefact, weights
from pipeline_lib.checkpoints import loading
from pipeline_lib.core import device
from pipeline_lib.evaluation import while_training
from pipeline_lib.features import decoding
from pipeline_lib.retrieval import neighbours, torch_candidates
from pipeline_lib.scoring import batches
from pipeline_lib.training import images
from pipeline_lib.training.state import SavedState

_METRICS = ("top1", "task_loss", "r1", "auroc_classification", "auroc_correct")
GPU, GRADIENTS = torch.device("cuda"), torch.device("lazy:0")


def _ones(self: Tensor) -> np.ndarray:
    if self.device.type != "cpu":
        raise TypeError(f"can't convert a tensor on {self.device} to numpy; copy it to the CPU first")
    return np.ones(tuple(self.shape), str(self.dtype).removeprefix("torch."))


def _listed(self: Tensor) -> list[Any]:
    return np.ones(tuple(self.shape), float if self.is_floating_point() else int).tolist()


def _first_alone(values: Tensor, as_tuple: bool) -> tuple[Tensor, ...]:
    return tuple(torch.zeros((values.ndim, 1), dtype=torch.int64, device=values.device))


def _converted(self: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """What `Module._apply` does, whose way of swapping tensors is not for these."""
    for module in self.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(function(value.detach()), value.requires_grad)
        for name, value in module._buffers.items():
            module._buffers[name] = None if value is None else function(value)
    return self


class _AtOnce:
    """A pool whose work is done by its caller: other threads don't know the mode."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    map = staticmethod(map)

    def __enter__(self) -> _AtOnce:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*arguments))
        return done


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], Any]]:
    """Run a test as on a machine with a GPU; gives a function that makes things outside of it."""
    made_on_the_cpu = torch.Generator
    for name, value in {"numpy": _ones, "tolist": _listed}.items():
        monkeypatch.setattr(FakeTensor, name, value, raising=False)
    monkeypatch.setattr(torch, "nonzero", _first_alone)
    monkeypatch.setattr(nn.Module, "_apply", _converted)
    for name, kind in {"item": float, "__float__": float, "__int__": int, "__index__": int, "__bool__": bool}.items():
        monkeypatch.setattr(FakeTensor, name, lambda self, kind=kind: kind(1), raising=False)
    monkeypatch.setattr(torch, "_sample_dirichlet", torch.ones_like)  # its shape is known to real devices alone
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": made_on_the_cpu())
    for module in (torch_candidates, neighbours):
        monkeypatch.setattr(module, "ThreadPoolExecutor", _AtOnce)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(device, "take_gpu", lambda count: "0")
    for module in (decoding, images, batches):
        monkeypatch.setattr(
            module, "loaded", lambda load, items, *_, **__: iter(_outside(lambda: list(map(load, items))))
        )
    for module in (weights, loading, artefact):
        monkeypatch.setattr(module, "load_file", lambda path: _outside(lambda: load_file(path)))
    monkeypatch.setattr(artefact, "save_file", _save_zeros)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield _outside


@pytest.fixture
def gradients(gpu: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """The same where gradients are taken: on the device `lazy`."""
    monkeypatch.setattr(device, "find_device", lambda name: GRADIENTS)
    no_autocast = torch.autocast("cpu", enabled=False)
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **named: no_autocast)
    monkeypatch.setattr(torch, "lazy", torch.cpu, raising=False)  # what recomputes activations asks the device's module
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: [GRADIENTS.type])
    monkeypatch.setattr(SavedState, "write", lambda self, state: None)
    monkeypatch.setattr(while_training, "evaluate", lambda predict, **_: dict.fromkeys(_METRICS, 0.5))
    return gpu


def _save_zeros(state: dict[str, Tensor], path: Path) -> None:
    _outside(lambda: save_file({name: torch.zeros(value.shape) for name, value in state.items()}, path))


def _outside(make: Callable[[], Any]) -> Any:
    with unset_fake_temporarily():
        return make()
