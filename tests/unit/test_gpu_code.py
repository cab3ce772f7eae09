"""Code for GPUs, run on a machine without one.

torch's FakeTensorMode runs tensors that say `cuda`: they have shapes, types and devices but no values, and an operation
whose tensors lie on different devices fails as it would on a GPU. Where code asks for a value (`float(x)`, `.tolist()`,
`.numpy()` of what was copied to the CPU), it gets ones. Values, gradients by autograd and speed are left to a real GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from pipeline_lib.backbones.base import Backbone, TimmEncoder
from pipeline_lib.config import kinds
from pipeline_lib.config.training import Training
from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.features.classifier import Classifier
from pipeline_lib.heads import run, train
from pipeline_lib.heads.model import UncertaintyHead
from pipeline_lib.heads.spec import HeadSpec
from pipeline_lib.retrieval import neighbours, torch_candidates
from pipeline_lib.retrieval.neighbours import nearest_others
from tests.unit.heads_world import CachedRows
from tests.unit.test_methods_losses import make

GPU = torch.device("cuda")
PRECISIONS = ("float32", "bfloat16")
ROWS = CachedRows(
    np.random.default_rng(0).normal(size=(2, 64, 12)).astype(np.float16),
    np.random.default_rng(1).random((2, 64), np.float32),
    label=np.arange(64) % 4,
)

pytestmark = pytest.mark.filterwarnings("ignore:CUDA is not available")


def _ones(self: Tensor) -> np.ndarray:
    if self.device.type != "cpu":
        raise TypeError(f"can't convert a tensor on {self.device} to numpy; copy it to the CPU first")
    return np.ones(tuple(self.shape), str(self.dtype).removeprefix("torch."))


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
    for name, value in {"numpy": _ones, "tolist": lambda x: np.ones(tuple(x.shape)).tolist()}.items():
        monkeypatch.setattr(FakeTensor, name, value, raising=False)
    monkeypatch.setattr(torch, "nonzero", _first_alone)
    monkeypatch.setattr(nn.Module, "_apply", _converted)
    for name, kind in {"item": float, "__float__": float, "__int__": int, "__index__": int, "__bool__": bool}.items():
        monkeypatch.setattr(FakeTensor, name, lambda self, kind=kind: kind(1), raising=False)
    monkeypatch.setattr(torch, "_sample_dirichlet", torch.ones_like)  # its shape is known to real devices alone
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": made_on_the_cpu())
    for module in (torch_candidates, neighbours):
        monkeypatch.setattr(module, "ThreadPoolExecutor", _AtOnce)
    monkeypatch.setattr(train, "choose_device", lambda asked: GPU)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield _outside


def _outside(make: Callable[[], Any]) -> Any:
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    with unset_fake_temporarily():
        return make()


def backbone(outside: Callable[[Any], Any], precision: str = "float32") -> Backbone:
    network = outside(lambda: timm.create_model("test_resnet", num_classes=10))
    config = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "input_size": (3, 32, 32)}
    return Backbone(
        TimmEncoder(network), config, 64, 10, Manifest("backbone", *({} for _ in range(6)), "", ""), GPU, precision
    )


def test_tensors_on_two_devices_are_an_error_as_on_a_gpu(gpu):
    with pytest.raises(RuntimeError, match="device"):
        torch.zeros(3, device=GPU) + torch.zeros(3)
    with pytest.raises(TypeError, match="copy it to the CPU"):
        torch.zeros(3, device=GPU).numpy()


@pytest.mark.parametrize("loss", kinds.kinds("heads.losses"))
@pytest.mark.parametrize("precision", PRECISIONS)
def test_heads_train_in_a_stack(gpu, monkeypatch, precision, loss):
    monkeypatch.setattr(run, "UncertaintyHead", lambda *arguments: gpu(lambda: UncertaintyHead(*arguments)))
    recipe = {"loss": loss, "precision": precision, "batch_size": 16, "episode_samples": 32, "warmup_episodes": 1}
    training = Training.model_validate(recipe | {"hidden": (8, 8)})
    which = {"backbone": "b", "variant": "v", "dataset": "d", "split": "train", "view": "train"}
    heads = train.train_heads(ROWS, [HeadSpec(seed=seed, training=training, **which) for seed in (1, 2)])
    assert [len(head.curve) for head in heads] == [4, 4]
    assert heads[0].weights["layers.0.weight"].shape == (8, 12)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_images_are_encoded_and_scored(gpu, precision):
    model = backbone(gpu, precision)
    encoded = model.encode(torch.zeros((4, 3, 32, 32), dtype=torch.uint8))
    assert encoded.embedding.device.type == encoded.logits.device.type == "cuda"
    label = torch.zeros(4, dtype=torch.int64, device=GPU)
    scalars, _ = Classifier(np.arange(10), None).scalars(encoded.logits, label)
    some, _ = Classifier(np.arange(3), torch.arange(3)).scalars(encoded.logits, label)
    assert {values.device.type for values in (*scalars.values(), *some.values())} == {"cuda"}


@pytest.mark.parametrize("kind", kinds.kinds("task_losses"))
def test_task_losses(gpu, kind):
    module = kinds.load("task_losses", kind)
    found = np.concatenate(list(module.losses(ROWS, module.Options(), GPU)))
    assert found.shape == (ROWS.rows * ROWS.epochs,)


def test_neighbours_are_searched(gpu):
    search = torch_candidates.TorchSearch(GPU)
    nearest = nearest_others(lambda start, stop: ROWS.read("embedding", 0, start, stop), 64, search, 32)
    assert len(nearest.index) == 64


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds.kinds("methods"))
def test_the_loss_of_every_method(gpu, kind):
    model = gpu(lambda: make(kind)).to(GPU)
    loss = model.loss(torch.zeros((8, 3, 32, 32), device=GPU), torch.arange(8, device=GPU) % 5)
    assert (loss.device.type, loss.shape) == ("cuda", ())
    prediction = model.eval()(torch.zeros((8, 3, 32, 32), device=GPU))
    assert {prediction.embedding.device.type, prediction.uncertainty.device.type} == {"cuda"}
