"""The loss that a model is trained on is its method's equation: of its own network, uncertainty and options."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from pipeline_lib.config import kinds
from pipeline_lib.methods import von_mises_fisher
from pipeline_lib.methods.base import Method
from tests.unit.test_methods_classifiers import cross_entropy_literally
from tests.unit.test_methods_contrastive import dot, hib_literally, infonce_literally, mcinfonce_literally
from tests.unit.test_methods_vmf_classes import elk_literally, nivmf_literally

# Values that are nobody's default. A start value of 0.02 gives concentrations near 50.
LEARNT = {"hidden": (16,), "unc_start_value": 0.02}
OPTIONS: dict[str, dict[str, Any]] = {
    "cross_entropy": {},
    "infonce": {"inv_temp": 7.0},
    "mcinfonce": {"inv_temp": 9.0, "mc_samples": 3, **LEARNT},
    "elk": {"inv_temp": 20.0, **LEARNT},
    "nivmf": {"inv_temp": 15.0, "mc_samples": 3, **LEARNT},
    "hib": {"inv_temp": 6.0, "hib_add_const": -3.0, "mc_samples": 3, **LEARNT},
    "het_xl": {"rank": 2, "covariance_scale": 0.1, "mc_samples": 3},
    "loss_prediction": {"uncertainty_weight": 0.3, **LEARNT},
    "sngp": {"features": 16, "length_scale": 4.0},
    "mc_dropout": {"drop_rate": 0.2, "mc_samples": 3},
    "ensemble": {"num_heads": 3},
}
IMAGES = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) % 5


pytestmark = pytest.mark.usefixtures("one_thread")


def make(kind: str) -> Method:
    """A model in training mode, whose classes differ more than an untrained network's do."""
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=5, img_size=32)
    module = kinds.load("methods", kind)
    model = module.Model(module.Options(**OPTIONS[kind]), network, 5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in ("network.head.weight", "heads.weight"):
                parameter.mul_(20)
            if name in ("class_log_concentration", "raw_temperature"):
                parameter.add_(0.5 * torch.randn_like(parameter))
    return model


def linear(layer: nn.Linear, inputs: list[float]) -> list[float]:
    bias = [0.0] * layer.out_features if layer.bias is None else layer.bias.tolist()
    return [dot(row, inputs) + each for row, each in zip(layer.weight.tolist(), bias, strict=True)]


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def cross_entropies(model: Method, e: Tensor) -> list[float]:
    logits = [linear(model.network.get_classifier(), row) for row in e.tolist()]
    return [cross_entropy_literally(row, label) for row, label in zip(logits, LABELS.tolist(), strict=True)]


def samples(model: Method, e: Tensor, kind: str) -> Tensor:
    """z ~ vMF(e / |e|, 1 / u)."""
    return von_mises_fisher.sample(e, 1 / model.uncertainty(e), OPTIONS[kind]["mc_samples"])


def mcinfonce(model: Method, e: Tensor) -> float:
    return mcinfonce_literally(samples(model, e, "mcinfonce").tolist(), OPTIONS["mcinfonce"]["inv_temp"])


def hib(model: Method, e: Tensor) -> float:
    options = OPTIONS["hib"]
    z = samples(model, e, "hib").tolist()
    return hib_literally(z, LABELS.tolist(), options["inv_temp"], options["hib_add_const"])


def elk(model: Method, e: Tensor) -> float:
    """Class concentrations are the learnt ones; where they start is another test's."""
    class_mean, kappa = model.network.get_classifier().weight, model.class_log_concentration.exp()
    return elk_literally(e, 1 / model.uncertainty(e), class_mean, kappa, LABELS)


def nivmf(model: Method, e: Tensor) -> float:
    class_mean, log_kappa = model.network.get_classifier().weight, model.class_log_concentration
    return nivmf_literally(samples(model, e, "nivmf"), class_mean, log_kappa, LABELS)


def het_xl(model: Method, e: Tensor) -> float:
    """V [d, r] and delta [d] are linear in e; a sample is e + V z + sqrt(delta) * z'."""
    count, rank, d = OPTIONS["het_xl"]["mc_samples"], OPTIONS["het_xl"]["rank"], e.shape[1]
    drawn = torch.randn(count, len(e), rank + d).tolist()
    tau, losses = softplus(model.raw_temperature.item()) + 1e-6, []
    for i, (row, label) in enumerate(zip(e.tolist(), LABELS.tolist(), strict=True)):
        parameters = linear(model.covariance, row)
        probability = 0.0
        for s in range(count):
            z, own = drawn[s][i][:rank], drawn[s][i][rank:]
            low_rank = [dot(parameters[k * rank : (k + 1) * rank], z) for k in range(d)]
            diagonal = [math.sqrt(softplus(parameters[d * rank + k]) + 1e-6) * own[k] for k in range(d)]
            noisy = [sum(parts) for parts in zip(row, low_rank, diagonal, strict=True)]
            logits = [value / tau for value in linear(model.network.get_classifier(), noisy)]
            probability += math.exp(-cross_entropy_literally(logits, label)) / count
        losses.append(-math.log(probability))
    return mean(losses)


def loss_prediction(model: Method, e: Tensor) -> float:
    losses, weight = cross_entropies(model, e), OPTIONS["loss_prediction"]["uncertainty_weight"]
    u = model.uncertainty(e).tolist()
    return mean(losses) + weight * mean([(a - b) ** 2 for a, b in zip(u, losses, strict=True)])


def sngp(model: Method, e: Tensor) -> float:
    """B phi(h), phi(h) = sqrt(2 / m) cos(W h + b), h the layer-normalised representation."""
    process, losses = model.process, []
    for h, label in zip(process.norm(e).tolist(), LABELS.tolist(), strict=True):
        angles = [dot(row, h) + b for row, b in zip(process.weight.tolist(), process.phase.tolist(), strict=True)]
        phi = [math.sqrt(2 / OPTIONS["sngp"]["features"]) * math.cos(angle) for angle in angles]
        losses.append(cross_entropy_literally(linear(process.output, phi), label))
    return mean(losses)


def ensemble(model: Method, e: Tensor) -> float:
    losses = []
    for row, label in zip(e.tolist(), LABELS.tolist(), strict=True):
        logits = linear(model.heads, row)
        losses += [cross_entropy_literally(logits[5 * m : 5 * m + 5], label) for m in range(3)]
    return mean(losses)


# Each is of the representations [n, d] alone. What is random is drawn after them.
LITERALLY: dict[str, Callable[[Method, Tensor], float]] = {
    "cross_entropy": lambda model, e: mean(cross_entropies(model, e)),
    "infonce": lambda model, e: infonce_literally(e.tolist(), OPTIONS["infonce"]["inv_temp"]),
    "mcinfonce": mcinfonce,
    "elk": elk,
    "nivmf": nivmf,
    "hib": hib,
    "het_xl": het_xl,
    "loss_prediction": loss_prediction,
    "sngp": sngp,
    "mc_dropout": lambda model, e: mean(cross_entropies(model, e)),  # the dropout is in the representation
    "ensemble": ensemble,
}


@pytest.mark.parametrize("kind", kinds.kinds("methods"))
@torch.no_grad()
def test_the_loss_of_every_method_is_its_equation(kind: str) -> None:
    model = make(kind)
    torch.manual_seed(2)
    loss = copy.deepcopy(model).loss(IMAGES, LABELS)  # of a copy: SNGP's power iteration goes on with every pass
    torch.manual_seed(2)
    assert loss.item() == pytest.approx(LITERALLY[kind](model, model.embed(IMAGES)), rel=1e-4)
