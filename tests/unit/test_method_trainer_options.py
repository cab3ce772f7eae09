"""Every option of a recipe reaches the training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pipeline_lib.training.trainer import Trainer
from tests.unit.test_method_training import batches, trainer

pytestmark = pytest.mark.usefixtures("one_thread")


def train(subject: Trainer) -> None:
    subject.train_epoch(0, batches(8), lambda count: None)


def test_every_step_has_the_rate_of_its_schedule() -> None:
    options = {"epochs": 4, "warmup_epochs": 1, "learning_rate": 0.01, "warmup_learning_rate": 0.001, "batch_size": 64}
    subject = trainer(steps_per_epoch=2, weight_decay=0.1, **options)
    peak, rates = 0.01 * math.sqrt(64 / 256), []
    for epoch in range(4):
        record = lambda count: rates.append({group["lr"] for group in subject._optimizer.param_groups})  # noqa: E731
        subject.train_epoch(epoch, batches(2, 2), record)
    expected = [0.001, (0.001 + peak) / 2] + [peak * (1 + math.cos(math.pi * t / 8)) / 2 for t in range(2, 8)]
    assert [len(each) for each in rates] == [1] * 8
    assert [each.pop() for each in rates] == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["cross_entropy", "elk", "nivmf"])
def test_weights_decay_and_single_parameters_do_not(kind: str) -> None:
    """The concentrations of nivMF's classes, one for each direction, are parameters of the loss as ELK's are."""
    subject = trainer(kind, weight_decay=0.1)
    names = {parameter: name for name, parameter in subject.task.model.named_parameters()}
    decay = {
        names[each]: group["weight_decay"] for group in subject._optimizer.param_groups for each in group["params"]
    }
    exempt = {"network.pos_embed", "network.cls_token", "network.reg_token", "class_log_concentration"}
    modules = dict(subject.task.model.named_modules())
    for name in names.values():
        module = modules[name.rpartition(".")[0]]
        single = name in exempt or isinstance(module, nn.LayerNorm) or name.endswith("bias")
        assert decay.pop(name) == (0.0 if single else 0.1), name
    assert decay == {}


@pytest.mark.parametrize("clip_norm", [None, 1e-3])
def test_the_gradient_is_at_most_as_long_as_its_bound(clip_norm: float | None) -> None:
    subject = trainer(clip_norm=clip_norm, warmup_epochs=0)
    train(subject)
    gradients = [each.grad.flatten() for each in subject.task.model.parameters() if each.grad is not None]
    length = torch.cat(gradients).norm().item()
    assert length == pytest.approx(1e-3, rel=1e-2) if clip_norm else length > 0.1


@pytest.mark.parametrize(("precision", "dtype"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_the_network_computes_in_the_precision_of_the_recipe(precision: str, dtype: torch.dtype) -> None:
    subject, seen = trainer(precision=precision), set()

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.add(output.dtype)

    subject.task.model.network.blocks[0].mlp.fc1.register_forward_hook(record)
    train(subject)
    assert seen == {dtype}
    assert {each.dtype for each in subject.task.model.parameters()} == {torch.float32}
