"""`compat: reference`: faults of the reference code on which published numbers may depend, repeated on request."""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm
import torch
from torch.nn import functional

from pipeline_lib.config import kinds
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.methods import von_mises_fisher
from pipeline_lib.methods.base import Method
from pipeline_lib.methods.het_xl import log_determinant, log_variances
from pipeline_lib.methods.hib import hib_loss_in_reference
from pipeline_lib.methods.infonce import infonce_loss
from pipeline_lib.methods.mcinfonce import mcinfonce_loss

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def directions(*shape: int) -> torch.Tensor:
    drawn = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return functional.normalize(drawn, dim=-1)


def model(kind: str, architecture: str = "test_vit", **options: Any) -> Method:
    size = {"img_size": 32} if architecture == "test_vit" else {}
    torch.manual_seed(0)
    network = timm.create_model(architecture, num_classes=5, **size)
    method = kinds.load("methods", kind)
    return method.Model(method.Options(kind=kind, **options), network, 5).eval()


def reference_ratio(z: list[list[float]], i: int, t: float) -> float:
    """The sums run over all j; a similarity that a mask set to zero counts as exp(0)."""
    count, product = len(z), lambda a, b: sum(x * y for x, y in zip(a, b, strict=True))
    other = (i + count // 2) % count
    positive = sum(math.exp(t * product(z[i], z[j])) if j == other else 1.0 for j in range(count) if j in (i, other))
    negative = sum(1.0 if j == i else math.exp(t * product(z[i], z[j])) for j in range(count) if j != other)
    return positive / negative


@pytest.mark.parametrize("inv_temp", [0.5, 15.0])
def test_the_ratio_of_infonce_and_mcinfonce_has_an_image_itself_in_both_sums(inv_temp: float) -> None:
    samples = directions(3, 6, 4)
    ratios = [[reference_ratio(sample, i, inv_temp) for i in range(6)] for sample in samples.tolist()]
    infonce = -sum(map(math.log, ratios[0])) / 6
    mcinfonce = -sum(math.log(sum(ratio[i] for ratio in ratios) / 3) for i in range(6)) / 6
    assert infonce_loss(samples[0], inv_temp, in_reference=True).item() == pytest.approx(infonce)
    assert mcinfonce_loss(samples, inv_temp, in_reference=True).item() == pytest.approx(mcinfonce)
    assert infonce_loss(samples[0], inv_temp).item() != pytest.approx(infonce)


def test_hib_pairs_neighbours_in_the_batch_and_takes_log_p_for_all() -> None:
    samples, a, b = directions(2, 5, 3), 3.0, -0.5
    z, match = samples.tolist(), {}
    for i in range(4):  # the fifth image has no partner
        for j in range(4):
            probabilities = [
                1 / (1 + math.exp(-a * sum(x * y for x, y in zip(s[i], s[j], strict=True)) - b)) for s in z
            ]
            match[i, j] = math.log(sum(probabilities) / 2 + 1e-5)
    partner = {0: 1, 1: 0, 2: 3, 3: 2}
    of_others = {i: [match[i, j] for j in range(4) if j not in (i, partner[i])] for i in range(4)}
    expected = sum(-match[i, partner[i]] + sum(of_others[i]) / 2 for i in range(4)) / 4
    assert hib_loss_in_reference(samples, torch.tensor(a), torch.tensor(b)).item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["infonce", "mcinfonce", "hib"])
@torch.no_grad()
def test_models_train_on_the_loss_of_the_reference_code(kind: str) -> None:
    subject = model(kind, compat="reference", **({} if kind == "infonce" else {"hidden": (8,), "mc_samples": 3}))
    torch.manual_seed(3)
    loss = subject.loss(IMAGES, torch.tensor([0, 1, 0, 1])).item()
    torch.manual_seed(3)
    z, inv_temp = functional.normalize(subject.embed(IMAGES), dim=-1), subject.log_inv_temp.exp()
    if kind != "infonce":
        z = von_mises_fisher.sample(z, 1 / subject.uncertainty(subject.embed(IMAGES)), 3)
    expected = {
        "infonce": lambda: infonce_loss(z, inv_temp, in_reference=True),
        "mcinfonce": lambda: mcinfonce_loss(z, inv_temp, in_reference=True),
        "hib": lambda: hib_loss_in_reference(z, inv_temp, subject.add_const),
    }[kind]()
    assert loss == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("infonce", ["log_inv_temp"]),
        ("mcinfonce", ["log_inv_temp"]),
        ("hib", ["log_inv_temp", "add_const"]),
        ("elk", ["class_log_concentration"]),
        ("nivmf", ["class_log_concentration"]),
    ],
)
def test_parameters_of_the_losses_are_not_learnt(kind: str, names: list[str]) -> None:
    fixed = [name for name, each in model(kind, compat="reference").named_parameters() if not each.requires_grad]
    assert fixed == names
    assert all(parameter.requires_grad for parameter in model(kind).parameters())


def test_elk_s_concentrations_are_the_lengths_of_the_classifier_s_rows() -> None:
    subject = model("elk", compat="reference", inv_temp=10.0)
    weight = subject.network.get_classifier().weight
    with torch.no_grad():
        weight.copy_(functional.normalize(weight, dim=-1) * torch.tensor([[0.5], [1.0], [2.0], [3.0], [0.1]]))
    assert subject._classes()[1].tolist() == pytest.approx([10, 10, 20, 30, 10])


def test_het_xl_draws_one_number_for_all_dimensions_and_adds_up_log_variances() -> None:
    (_, one), (_, many) = (
        model("het_xl", compat=compat)._standard_normal(torch.zeros(2, 64)) for compat in ("reference", None)
    )
    assert one.shape[-1] == 1
    assert many.shape[-1] > 1
    factor, diagonal = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[1.0, 0.5]])
    assert log_variances(factor, diagonal).item() == pytest.approx(math.log(2.0) + math.log(4.5))
    assert log_determinant(factor, diagonal).item() == pytest.approx(math.log(2.0 * 4.5 - 2.0 * 2.0))
    assert model("het_xl", compat="reference", uncertainty="log_determinant")(IMAGES).uncertainty.isfinite().all()


@torch.no_grad()
def test_sngp_s_variance_plays_no_part() -> None:
    subject, fixed = (
        model("sngp", compat=compat, features=8, spectral_norm_bound=None) for compat in ("reference", None)
    )
    logits, _ = subject.process(subject.embed(IMAGES))
    assert torch.equal(subject(IMAGES).logits, logits)
    assert (fixed(IMAGES).logits.abs() < logits.abs()).all()


@torch.no_grad()
def test_dropout_is_off_at_evaluation_in_a_vit_alone() -> None:
    def has_samples(architecture: str, compat: str | None) -> bool:
        options = {"compat": compat, "uncertainty": "class_entropy"}
        one, many = (model("mc_dropout", architecture, mc_samples=n, **options)(IMAGES).logits for n in (1, 3))
        return not torch.equal(one, many)

    assert not has_samples("test_vit", "reference")
    assert all(has_samples(*each) for each in (("test_vit", None), ("test_resnet", None), ("test_resnet", "reference")))


def test_samples_without_dropout_can_not_be_asked_how_much_they_disagree() -> None:
    with pytest.raises(PipelineError, match="jensen_shannon would be 0 for all images; set uncertainty: class_entropy"):
        model("mc_dropout", "test_vit", compat="reference", uncertainty="jensen_shannon")
