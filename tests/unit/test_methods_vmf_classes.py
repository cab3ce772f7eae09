from __future__ import annotations

import math
from types import ModuleType

import mpmath
import numpy as np
import pytest
import timm
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from pipeline_lib.methods import elk, nivmf
from pipeline_lib.methods.elk import elk_loss, log_expected_likelihood
from pipeline_lib.methods.nivmf import log_density, nivmf_loss
from pipeline_lib.methods.von_mises_fisher import log_normaliser, sample

CLASSES = 5


pytestmark = pytest.mark.usefixtures("one_thread")


def log_normaliser_by_definition(dim: int, kappa: mpmath.mpf) -> mpmath.mpf:
    order = mpmath.mpf(dim) / 2 - 1
    area = dim * mpmath.log(2 * mpmath.pi) / 2
    return order * mpmath.log(kappa) - area - mpmath.log(mpmath.besseli(order, kappa))


def cross_entropy_literally(similarity: list[list[mpmath.mpf]], labels: list[int]) -> float:
    total = mpmath.mpf(0)
    for row, label in zip(similarity, labels, strict=True):
        total -= row[label] - mpmath.log(sum(mpmath.exp(value) for value in row))
    return float(total / len(labels))


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(value**2 for value in vector))
    return [value / length for value in vector]


def elk_literally(mean: Tensor, kappa: Tensor, class_mean: Tensor, class_kappa: Tensor, labels: Tensor) -> float:
    dim = mean.shape[1]
    similarity = []
    for mu, k in zip(mean.tolist(), kappa.tolist(), strict=True):
        row = []
        for m, kc in zip(class_mean.tolist(), class_kappa.tolist(), strict=True):
            joint = math.sqrt(sum((k * a + kc * b) ** 2 for a, b in zip(unit(mu), unit(m), strict=True)))
            product = log_normaliser_by_definition(dim, k) + log_normaliser_by_definition(dim, kc)
            row.append(product - log_normaliser_by_definition(dim, joint))
        similarity.append(row)
    return cross_entropy_literally(similarity, labels.tolist())


def nivmf_literally(samples: Tensor, class_mean: Tensor, log_kappa: Tensor, labels: Tensor) -> float:
    dim = samples.shape[-1]
    similarity = []
    for i in range(samples.shape[1]):
        row = []
        for m, log_k in zip(class_mean.tolist(), log_kappa.tolist(), strict=True):
            k, m = [math.exp(value) for value in log_k], unit(m)
            moved_mean = [a * b for a, b in zip(k, m, strict=True)]
            length = math.sqrt(sum(value**2 for value in moved_mean))
            total = mpmath.mpf(0)
            for z in samples[:, i].tolist():
                moved = [a * b for a, b in zip(k, z, strict=True)]
                cosine = sum(a * b for a, b in zip(unit(moved), unit(moved_mean), strict=True))
                normaliser = mpmath.exp(log_normaliser_by_definition(dim, length)) * math.prod(k) / length**dim
                total += normaliser * mpmath.exp(length * cosine)
            row.append(mpmath.log(total / len(samples)))
        similarity.append(row)
    return cross_entropy_literally(similarity, labels.tolist())


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def elk_inputs(dim: int = 6, images: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Means and concentrations of images and classes, and labels."""
    kappa, class_kappa = 3 * random(images, seed=1).exp(), 5 * random(CLASSES, seed=2).exp()
    return random(images, dim), kappa, random(CLASSES, dim, seed=3), class_kappa, torch.arange(images) % CLASSES


def nivmf_inputs(dim: int = 6, images: int = 7, samples: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Samples, class means, logarithms of class concentrations, and labels."""
    z = functional.normalize(random(samples, images, dim), dim=-1)
    return z, random(CLASSES, dim, seed=3), 1 + random(CLASSES, dim, seed=4), torch.arange(images) % CLASSES


def test_elk_in_three_dimensions_by_hand():
    # C_3 = kappa / (4 pi sinh kappa). An image with kappa = 3 at the first class's mean, the second class opposite:
    # the joint concentrations are 3 + 2 and 3 - 2.
    mean, class_mean = torch.tensor([[0.0, 0.0, 7.0]]), torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -0.5]])
    difference = math.log((math.sinh(5) / 5) / (math.sinh(1) / 1))
    kappas = torch.tensor([3.0]), torch.tensor([2.0, 2.0])
    loss = elk_loss(mean, kappas[0], class_mean, kappas[1], torch.tensor([0]))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-difference)), rel=1e-6)
    wrong = elk_loss(mean, kappas[0], class_mean, kappas[1], torch.tensor([1]))
    assert wrong.item() == pytest.approx(math.log1p(math.exp(difference)), rel=1e-6)


@pytest.mark.parametrize("dim", [2, 3, 6, 50])
def test_elk_equals_its_literal_transcription(dim):
    inputs = elk_inputs(dim)
    assert elk_loss(*inputs).item() == pytest.approx(elk_literally(*inputs), rel=1e-11)


def test_the_kernel_is_the_expected_density():
    torch.manual_seed(0)
    mean, kappa, class_mean, class_kappa, _ = elk_inputs(dim=4)
    z = sample(mean, kappa, 5000)
    cosine = z @ functional.normalize(class_mean, dim=-1).T
    density = (log_normaliser(4, class_kappa) + class_kappa * cosine).exp()
    standard_error = density.std(0) / math.sqrt(len(z))
    expected = log_expected_likelihood(mean, kappa, class_mean, class_kappa).exp()
    assert ((density.mean(0) - expected).abs() < 4 * standard_error).all()


def test_nivmf_in_three_dimensions_by_hand():
    # K = diag(2, 2, 6) for the first class, 3 I for the second; both have their mean at the third axis, and so has z.
    # det(K) / |K m|^3 = 24 / 216 and 1; the cosine is 1.
    z = torch.tensor([[[0.0, 0.0, 1.0]]])
    class_mean = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 4.0]])
    log_kappa = torch.tensor([[2.0, 2.0, 6.0], [3.0, 3.0, 3.0]]).log()
    first = 6 / (4 * math.pi * math.sinh(6)) * 24 / 216 * math.exp(6)
    second = 3 / (4 * math.pi * math.sinh(3)) * math.exp(3)
    assert log_density(z, class_mean, log_kappa)[0, 0].exp().tolist() == pytest.approx([first, second], rel=1e-5)
    loss = nivmf_loss(z, class_mean, log_kappa, torch.tensor([0]))
    assert loss.item() == pytest.approx(-math.log(first / (first + second)), rel=1e-5)


@pytest.mark.parametrize("dim", [2, 3, 6, 50])
def test_nivmf_equals_its_literal_transcription(dim):
    inputs = nivmf_inputs(dim)
    assert nivmf_loss(*inputs).item() == pytest.approx(nivmf_literally(*inputs), rel=1e-11)


def test_equal_concentrations_make_a_nivmf_a_vmf():
    z, class_mean, _, _ = nivmf_inputs()
    kappa = torch.tensor(7.0, dtype=torch.float64)
    cosine = z @ functional.normalize(class_mean, dim=-1).T
    expected = log_normaliser(6, kappa) + kappa * cosine
    torch.testing.assert_close(log_density(z, class_mean, kappa.log().expand(CLASSES, 6)), expected)


@pytest.mark.parametrize(("scale", "error"), [(10, 0.05), (100, 0.005), (1000, 0.0005)])
def test_the_nivmf_integrates_to_one_at_high_concentrations(scale, error):
    angle = torch.arange(20_000, dtype=torch.float64) * (2 * math.pi / 20_000)
    circle = torch.stack([angle.cos(), angle.sin()], dim=-1)
    log_kappa = (torch.tensor([[4.0, 9.0], [9.0, 5.0], [6.0, 6.0]], dtype=torch.float64) * scale).log()
    density = log_density(circle, random(3, 2, seed=8), log_kappa).exp()
    integral = density.mean(0) * 2 * math.pi
    assert ((integral - 1).abs() < error).all()
    assert integral[2].item() == pytest.approx(1, abs=1e-12)


def test_losses_are_checked_against_finite_differences():
    mean, kappa, class_mean, class_kappa, labels = elk_inputs(dim=3, images=2)
    parameters = [part.requires_grad_() for part in (mean, kappa, class_mean, class_kappa)]
    assert torch.autograd.gradcheck(lambda *inputs: elk_loss(*inputs, labels), parameters)
    z, class_mean, log_kappa, labels = nivmf_inputs(dim=3, images=2, samples=2)
    parameters = [part.requires_grad_() for part in (z, class_mean, log_kappa)]
    assert torch.autograd.gradcheck(lambda *inputs: nivmf_loss(*inputs, labels), parameters)


def test_the_order_of_images_and_classes_does_not_matter():
    images, classes = torch.randperm(7), torch.randperm(CLASSES)
    relabelled = classes.argsort()
    mean, kappa, class_mean, class_kappa, labels = elk_inputs()
    shuffled = elk_loss(
        mean[images], kappa[images], class_mean[classes], class_kappa[classes], relabelled[labels[images]]
    )
    torch.testing.assert_close(shuffled, elk_loss(mean, kappa, class_mean, class_kappa, labels))
    z, class_mean, log_kappa, labels = nivmf_inputs()
    shuffled = nivmf_loss(z[:, images], class_mean[classes], log_kappa[classes], relabelled[labels[images]])
    torch.testing.assert_close(shuffled, nivmf_loss(z, class_mean, log_kappa, labels))


@pytest.mark.parametrize("dim", [2, 2048])
@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [1, 1, 1, 1]])
@pytest.mark.parametrize("identical", [False, True])
def test_losses_and_gradients_are_finite_at_extreme_inputs(dim, labels, identical):
    torch.manual_seed(0)
    labels = torch.tensor(labels)
    embedding = torch.ones(4, dim) if identical else torch.randn(4, dim)
    embedding.requires_grad_()
    uncertainty = torch.tensor([1e-6, 1e6, 1.0, 1e-3], requires_grad=True)
    # The classes: at an image, opposite to it with its concentration, elsewhere.
    class_mean = torch.stack([embedding[0], -embedding[0], torch.randn(dim), embedding[3]]).detach().requires_grad_()
    log_kappa = torch.tensor([1e6, 1e6, 1e-6, 30.0]).log().requires_grad_()
    loss = elk_loss(embedding, 1 / uncertainty, class_mean, log_kappa.exp(), labels)
    wide = torch.linspace(-14, 14, 4 * dim).view(4, dim).requires_grad_()
    loss = loss + nivmf_loss(sample(embedding, 1 / uncertainty, 4), class_mean, wide, labels)
    loss.backward()
    assert loss.isfinite() and loss.dtype == torch.float32
    for part in (embedding, uncertainty, class_mean, log_kappa, wide):
        assert part.grad.isfinite().all()


def test_float32_agrees_with_float64_at_high_concentrations():
    mean, _, class_mean, _, labels = elk_inputs(dim=512)
    kappa, class_kappa = torch.logspace(0, 6, 7).double(), torch.logspace(1, 3, CLASSES).double()
    inputs = mean, kappa, class_mean, class_kappa
    single = elk_loss(*(part.float() for part in inputs), labels)
    assert single.item() == pytest.approx(elk_loss(*inputs, labels).item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["elk", "nivmf"])
def test_random_labels_raise_the_uncertainty(kind):
    torch.manual_seed(0)
    dim, per_class = 8, 20
    class_mean = torch.eye(CLASSES, dim)
    labels = torch.arange(CLASSES).repeat_interleave(per_class)
    embedding = class_mean[labels] + 0.02 * torch.randn(len(labels), dim)
    # Of every other image, the label says nothing.
    ambiguous = torch.arange(len(labels)) % 2 == 1
    labels = torch.where(ambiguous, torch.randint(CLASSES, labels.shape), labels)
    log_uncertainty = torch.full((2,), math.log(0.1), requires_grad=True)
    optimiser = torch.optim.Adam([log_uncertainty], lr=0.2)
    for _ in range(15):
        kappa = (-log_uncertainty[ambiguous.long()]).exp()
        if kind == "elk":
            loss = elk_loss(embedding, kappa, class_mean, torch.full((CLASSES,), 10.0), labels)
        else:
            log_kappa = torch.full((CLASSES, dim), math.log(10.0))
            loss = nivmf_loss(sample(embedding, kappa, 4), class_mean, log_kappa, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    clear, unclear = log_uncertainty.exp().tolist()
    assert clear < 0.1 < unclear


def model_of(module: ModuleType, architecture: str, **options: object) -> elk.Model | nivmf.Model:
    torch.manual_seed(0)
    size = {"img_size": 64} if architecture == "test_vit" else {}
    network = timm.create_model(architecture, num_classes=CLASSES, **size)
    return module.Model(module.Options(hidden=(32,), **options), network, CLASSES)


def batch(images: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(images, 3, 64, 64, generator=generator), torch.arange(images) % CLASSES


@pytest.mark.slow
@pytest.mark.parametrize("module", [elk, nivmf])
@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit"])
def test_models_learn_everything_that_the_loss_depends_on(module, architecture):
    model, (images, labels) = model_of(module, architecture), batch()
    torch.manual_seed(3)
    loss = model.loss(images, labels)
    assert loss.shape == () and loss.dtype == torch.float32 and loss.isfinite()
    start = {name: part.detach().clone() for name, part in model.named_parameters()}
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(8):
        optimiser.zero_grad()
        last = model.loss(images, labels)
        last.backward()
        optimiser.step()
    assert last < loss - 0.1
    unmoved = [name for name, part in model.named_parameters() if torch.equal(part, start[name])]
    assert unmoved in (["network.fc.bias"], ["network.head.bias"])


@pytest.mark.parametrize("module", [elk, nivmf])
@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit"])
def test_predictions_have_the_shapes_of_every_method_and_repeat(module, architecture):
    model, (images, _) = model_of(module, architecture).eval(), batch(4)
    with torch.no_grad():
        first, again = model(images), model(images)
        alone = model(images[:1])
    assert first.logits.shape == (4, CLASSES) and first.uncertainty.shape == (4,)
    assert first.embedding.shape == (4, model.dim)
    assert all(part.dtype == torch.float32 for part in first)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    torch.testing.assert_close(alone.logits, first.logits[:1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(first.logits.exp().sum(-1), torch.ones(4))
    assert (first.uncertainty > 0).all()


@pytest.mark.parametrize("module", [elk, nivmf])
def test_half_precision_reaches_only_the_network(module):
    model, (images, labels) = model_of(module, "test_resnet"), batch()
    seen = []
    model.embed, embed = lambda batch: seen.append(embed(batch)) or seen[-1], model.embed
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(4)
        loss = model.loss(images, labels)
        prediction = model.eval()(images)
    assert loss.dtype == prediction.logits.dtype == prediction.uncertainty.dtype == torch.float32
    loss.backward()
    # The same loss without autocast, from the same representations.
    model.train().embed = lambda _: seen[0].detach()
    torch.manual_seed(4)
    assert model.loss(images, labels).item() == pytest.approx(loss.item(), rel=1e-6)


def test_the_uncertainty_flattens_the_logits_of_elk():
    inputs = elk_inputs()
    entropies = []
    for uncertainty in (0.001, 0.1, 10.0):
        log_probability = log_expected_likelihood(
            inputs[0], torch.full((7,), 1 / uncertainty), inputs[2], torch.full((CLASSES,), 20.0)
        ).log_softmax(-1)
        entropies.append(-(log_probability.exp() * log_probability).sum(-1))
    assert (entropies[0] < entropies[1]).all() and (entropies[1] < entropies[2]).all()


@pytest.mark.parametrize(("module", "inv_temp"), [(elk, 27.685357549319253), (nivmf, 10.896111351193488)])
def test_options_start_the_model(module, inv_temp):
    assert module.Options().inv_temp == inv_temp
    model = model_of(module, "test_resnet", inv_temp=50.0, unc_start_value=0.01)
    np.testing.assert_allclose(model.class_log_concentration.detach().exp(), 50, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(model(batch(4)[0]).uncertainty.mean().item(), 0.01, rtol=0.5, atol=0)
    for wrong in ({"inv_temp": 0}, {"unc_start_value": 0.0}, {"hidden": []}, {"temperature": 1}):
        with pytest.raises(ValidationError):
            module.Options(**wrong)
