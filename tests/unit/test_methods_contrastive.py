from __future__ import annotations

import copy
import itertools
import math

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional

from pipeline_lib.methods import hib, infonce, mcinfonce, von_mises_fisher
from pipeline_lib.methods.hib import hib_loss, log_match_probability
from pipeline_lib.methods.infonce import infonce_loss
from pipeline_lib.methods.mcinfonce import mcinfonce_loss

METHODS = {
    "infonce": (infonce.Model, infonce.Options()),
    "mcinfonce": (mcinfonce.Model, mcinfonce.Options(hidden=(16,))),
    # At the default, u = log 2, samples are all but uniform and a few steps change little.
    "hib": (hib.Model, hib.Options(hidden=(16,), unc_start_value=0.01)),
}
NETWORKS = {"test_resnet": {}, "test_vit": {"img_size": 32}}
LABELS = torch.tensor([0, 1, 0, 2, 1, 0])


pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def directions(*shape: int, seed: int = 0) -> torch.Tensor:
    return functional.normalize(seeded(*shape, seed=seed), dim=-1)


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def dot(first: list[float], second: list[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


def crop_probability_literally(z: list[list[float]], i: int, inv_temp: float) -> float:
    """exp(t z_i . z_i') / sum_{j != i} exp(t z_i . z_j)."""
    other_crop = (i + len(z) // 2) % len(z)
    total = sum(math.exp(inv_temp * dot(z[i], z[j])) for j in range(len(z)) if j != i)
    return math.exp(inv_temp * dot(z[i], z[other_crop])) / total


def infonce_literally(embedding: list[list[float]], inv_temp: float) -> float:
    z = [[value / math.sqrt(dot(e, e)) for value in e] for e in embedding]
    return -sum(math.log(crop_probability_literally(z, i, inv_temp)) for i in range(len(z))) / len(z)


def mcinfonce_literally(samples: list[list[list[float]]], inv_temp: float) -> float:
    count, total = len(samples[0]), 0.0
    for i in range(count):
        total -= math.log(sum(crop_probability_literally(z, i, inv_temp) for z in samples) / len(samples))
    return total / count


def match_probability_literally(samples: list[list[list[float]]], i: int, j: int, a: float, b: float) -> float:
    """1/K^2 sum_k sum_l sigmoid(a z_i^k . z_j^l + b)."""
    total = 0.0
    for k in range(len(samples)):
        for l in range(len(samples)):  # noqa: E741
            total += 1 / (1 + math.exp(-(a * dot(samples[k][i], samples[l][j]) + b)))
    return total / len(samples) ** 2


def hib_literally(samples: list[list[list[float]]], labels: list[int], a: float, b: float) -> float:
    match, mismatch = [], []
    for i, j in itertools.permutations(range(len(labels)), 2):
        p = match_probability_literally(samples, i, j, a, b)
        if labels[i] == labels[j]:
            match.append(-math.log(p))
        else:
            mismatch.append(-math.log(1 - p))
    return sum(sum(losses) / len(losses) for losses in (match, mismatch) if losses) / 2


# By hand.


def test_infonce_of_two_orthogonal_images():
    # The other crop is alike, both crops of the other image are orthogonal: e^t / (e^t + 1 + 1), 1/2 at t = log 2.
    embedding = torch.tensor([[2.0, 0], [0, 1], [0.5, 0], [0, 3]])
    assert infonce_loss(embedding, math.log(2)).item() == pytest.approx(math.log(2), abs=1e-6)


def test_mcinfonce_averages_probabilities_not_their_logarithms():
    # The first sample gives 1/2 as above; in the second all are alike, and each of three candidates gets 1/3.
    apart = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    alike = torch.tensor([[1.0, 0]]).expand(4, 2)
    loss = mcinfonce_loss(torch.stack([apart, alike]), math.log(2))
    assert loss.item() == pytest.approx(-math.log((1 / 2 + 1 / 3) / 2), abs=1e-6)


def test_hib_of_three_images_with_two_samples_each():
    # sigmoid(log 3) = 3/4 where two samples are alike, sigmoid(0) = 1/2 where they are orthogonal.
    samples = torch.tensor([[[1.0, 0, 0], [1, 0, 0], [0, 0, 1]], [[0, 1, 0], [1, 0, 0], [0, 0, 1]]])
    loss = hib_loss(samples, torch.tensor([4, 4, 7]), torch.tensor(math.log(3)), torch.tensor(0.0))
    match, other = (3 / 4 + 3 / 4 + 1 / 2 + 1 / 2) / 4, 1 / 2
    assert loss.item() == pytest.approx((-math.log(match) - math.log(1 - other)) / 2, abs=1e-6)


def test_one_sample_makes_mcinfonce_infonce():
    embedding = seeded(10, 6)
    sample = functional.normalize(embedding, dim=-1)[None]
    torch.testing.assert_close(mcinfonce_loss(sample, 7.0), infonce_loss(embedding, 7.0))
    torch.testing.assert_close(mcinfonce_loss(sample.expand(5, -1, -1), 7.0), infonce_loss(embedding, 7.0))


# Literal transcriptions, over random batches.

seeds, halves, temperatures = st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([0.1, 1.0, 15.0, 52.4])


@settings(max_examples=30, deadline=None)
@given(seeds, halves, temperatures)
def test_infonce_equals_its_literal_transcription(seed, half, inv_temp):
    embedding = 3 * seeded(2 * half, 5, seed=seed)
    expected = infonce_literally(embedding.tolist(), inv_temp)
    assert infonce_loss(embedding, scalar(inv_temp)).item() == pytest.approx(expected, rel=1e-11, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seeds, halves, temperatures, st.integers(1, 4))
def test_mcinfonce_equals_its_literal_transcription(seed, half, inv_temp, count):
    samples = directions(count, 2 * half, 5, seed=seed)
    expected = mcinfonce_literally(samples.tolist(), inv_temp)
    assert mcinfonce_loss(samples, scalar(inv_temp)).item() == pytest.approx(expected, rel=1e-11, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    seeds,
    st.sampled_from([0.1, 1.0, 8.0]),
    st.sampled_from([-5.4, 0.0, 2.0]),
    st.integers(1, 4),
    st.lists(st.integers(0, 2), min_size=1, max_size=6),
)
def test_hib_equals_its_literal_transcription(seed, a, b, count, labels):
    samples = directions(count, len(labels), 5, seed=seed)
    expected = hib_literally(samples.tolist(), labels, a, b)
    loss = hib_loss(samples, torch.tensor(labels), scalar(a), scalar(b))
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_losses_in_float32_are_those_in_float64():
    embedding, samples = seeded(24, 64), directions(4, 24, 64)
    labels = torch.arange(24) % 5
    for loss in (
        lambda e, z: infonce_loss(e, 15.2),
        lambda e, z: mcinfonce_loss(z, 52.4),
        lambda e, z: hib_loss(z, labels, torch.tensor(26.9, dtype=z.dtype), torch.tensor(2.04, dtype=z.dtype)),
    ):
        exact, single = loss(embedding, samples), loss(embedding.float(), samples.float())
        assert single.dtype == torch.float32
        assert single.item() == pytest.approx(exact.item(), rel=1e-5)


# Gradients.


def test_gradients_of_infonce_are_those_of_finite_differences():
    inputs = (seeded(6, 4).requires_grad_(), scalar(3.0).requires_grad_())
    assert torch.autograd.gradcheck(infonce_loss, inputs)


def test_gradients_of_mcinfonce_are_those_of_finite_differences():
    inputs = (directions(3, 6, 4).requires_grad_(), scalar(3.0).requires_grad_())
    assert torch.autograd.gradcheck(mcinfonce_loss, inputs)


def test_gradients_of_hib_are_those_of_finite_differences():
    inputs = (directions(3, 6, 4).requires_grad_(), scalar(3.0).requires_grad_(), scalar(-0.5).requires_grad_())
    assert torch.autograd.gradcheck(lambda z, a, b: hib_loss(z, LABELS, a, b), inputs)


# Invariance.


def test_the_order_of_images_crops_and_samples_does_not_matter():
    embedding, samples = seeded(8, 5), directions(3, 8, 5)
    images = torch.tensor([2, 0, 3, 1])
    permuted = torch.cat([images, images + 4])
    for order in (permuted, torch.arange(8).roll(4), permuted.roll(4)):
        torch.testing.assert_close(infonce_loss(embedding[order], 9.0), infonce_loss(embedding, 9.0))
        torch.testing.assert_close(mcinfonce_loss(samples[:, order], 9.0), mcinfonce_loss(samples, 9.0))
    torch.testing.assert_close(mcinfonce_loss(samples[[2, 0, 1]], 9.0), mcinfonce_loss(samples, 9.0))


def test_infonce_does_not_see_the_embeddings_lengths():
    embedding = seeded(8, 5)
    lengths = torch.linspace(1e-3, 1e3, 8, dtype=torch.float64)[:, None]
    torch.testing.assert_close(infonce_loss(embedding * lengths, 9.0), infonce_loss(embedding, 9.0))


def test_hib_does_not_depend_on_the_order_of_images_nor_on_any_image_s_order_of_samples():
    samples, order = directions(3, 6, 4), torch.tensor([5, 2, 0, 1, 4, 3])
    loss = hib_loss(samples, LABELS, scalar(4.0), scalar(1.0))
    torch.testing.assert_close(hib_loss(samples[:, order], LABELS[order], scalar(4.0), scalar(1.0)), loss)
    torch.testing.assert_close(hib_loss(samples, 9 - 3 * LABELS, scalar(4.0), scalar(1.0)), loss)
    # All pairs of samples count: the samples of one image may change places alone.
    shuffled = samples.clone()
    shuffled[:, 2] = samples[[1, 2, 0], 2]
    torch.testing.assert_close(hib_loss(shuffled, LABELS, scalar(4.0), scalar(1.0)), loss)


def test_match_probabilities_are_symmetric_and_add_up_to_one():
    log_match, log_mismatch = log_match_probability(directions(4, 6, 5), scalar(5.0), scalar(-1.0))
    torch.testing.assert_close(log_match, log_match.T)
    torch.testing.assert_close(log_match.exp() + log_mismatch.exp(), torch.ones_like(log_match))


# Extremes.


def finite_with_gradient(loss: torch.Tensor, *inputs: torch.Tensor) -> bool:
    gradients = torch.autograd.grad(loss, inputs)
    return bool(loss.isfinite()) and all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("inv_temp", [1e-6, 1.0, 1e6])
def test_identical_embeddings_give_every_candidate_the_same_probability(inv_temp):
    embedding = torch.ones(8, 5).requires_grad_()
    t = torch.tensor(inv_temp).requires_grad_()
    for loss in (infonce_loss(embedding, t), mcinfonce_loss(functional.normalize(embedding, dim=-1)[None], t)):
        assert loss.item() == pytest.approx(math.log(7), abs=0.2 if inv_temp > 1e3 else 1e-5)
        assert finite_with_gradient(loss, embedding, t)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e18])
def test_infonce_of_embeddings_of_extreme_length_is_finite(scale):
    embedding = (scale * seeded(8, 5).float()).requires_grad_()
    assert finite_with_gradient(infonce_loss(embedding, 15.0), embedding)


@pytest.mark.parametrize("labels", [[3, 3, 3, 3], [0, 1, 2, 3], [0, 0, 1, 1]])
@pytest.mark.parametrize("inv_temp", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("add_const", [-1e4, 0.0, 1e4])
def test_hib_is_finite_whatever_the_labels_scale_and_shift(labels, inv_temp, add_const):
    for samples in (directions(3, 4, 5).float(), torch.ones(3, 4, 5) / math.sqrt(5)):
        a, b = torch.tensor(inv_temp).requires_grad_(), torch.tensor(add_const).requires_grad_()
        samples = samples.clone().requires_grad_()
        assert finite_with_gradient(hib_loss(samples, torch.tensor(labels), a, b), samples, a, b)


def test_hib_of_one_kind_of_pairs_is_that_kind_s_half():
    samples = directions(3, 4, 5)
    log_match, log_mismatch = log_match_probability(samples, scalar(2.0), scalar(1.0))
    pairs = ~torch.eye(4, dtype=torch.bool)
    one_class = hib_loss(samples, torch.zeros(4, dtype=torch.int64), scalar(2.0), scalar(1.0))
    torch.testing.assert_close(one_class, -log_match[pairs].mean() / 2)
    all_differ = hib_loss(samples, torch.arange(4), scalar(2.0), scalar(1.0))
    torch.testing.assert_close(all_differ, -log_mismatch[pairs].mean() / 2)
    assert hib_loss(samples[:, :1], torch.tensor([5]), scalar(2.0), scalar(1.0)).item() == 0


@pytest.mark.parametrize("u", [1e-6, 1.0, 1e6])
def test_extreme_uncertainties_give_finite_losses_and_gradients(u):
    torch.manual_seed(0)
    uncertainty = torch.full((8,), u).requires_grad_()
    mean = directions(8, 16).float().requires_grad_()
    samples = von_mises_fisher.sample(mean, 1 / uncertainty, 16)
    assert finite_with_gradient(mcinfonce_loss(samples, 52.4), mean, uncertainty)
    samples = von_mises_fisher.sample(mean, 1 / uncertainty, 16)
    loss = hib_loss(samples, torch.arange(8) % 3, torch.tensor(26.9), torch.tensor(2.04))
    assert finite_with_gradient(loss, mean, uncertainty)


def test_a_batch_that_is_not_of_two_crops_is_refused():
    with pytest.raises(ValueError, match="7 embeddings are not two crops"):
        infonce_loss(torch.randn(7, 3), 1.0)
    with pytest.raises(ValueError, match="even"):
        mcinfonce_loss(torch.randn(2, 7, 3), 1.0)


# What the uncertainty learns.


def learnt_uncertainty(loss, mean: torch.Tensor) -> torch.Tensor:
    """The uncertainties that a loss finds for given mean directions, from 0.02 on."""
    torch.manual_seed(0)
    log_u = torch.full((len(mean),), math.log(0.02)).requires_grad_()
    optimiser = torch.optim.Adam([log_u], lr=0.1)
    for _ in range(40):
        optimiser.zero_grad()
        loss(von_mises_fisher.sample(mean, (-log_u).exp(), 8)).backward()
        optimiser.step()
    return log_u.detach().exp()


def test_images_whose_crops_disagree_become_uncertain_by_mcinfonce():
    mean = torch.eye(8)[[0, 1, 2, 3, 0, 1, 2, 4]]
    u = learnt_uncertainty(lambda samples: mcinfonce_loss(samples, 16.0), mean)
    assert u[[3, 7]].min() > 3 * u[[0, 1, 2, 4, 5, 6]].max()


def test_images_that_lie_with_another_class_become_uncertain_by_hib():
    mean, labels = torch.eye(8)[[0, 0, 0, 1, 1, 1, 0]], torch.tensor([0, 0, 0, 1, 1, 1, 1])
    u = learnt_uncertainty(lambda z: hib_loss(z, labels, torch.tensor(16.0), torch.tensor(-8.0)), mean)
    assert u[6] > 3 * u[3:6].max()


# Models.


def model_of(method: str, network: str = "test_resnet") -> torch.nn.Module:
    torch.manual_seed(0)
    model, options = METHODS[method]
    return model(options, timm.create_model(network, num_classes=5, **NETWORKS[network]), 5)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return seeded(8, 3, 32, 32).float(), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_a_prediction_has_the_shapes_of_every_method_and_nothing_random(method, network):
    model, (images, _) = model_of(method, network).eval(), batch()
    with torch.no_grad():
        first, second = model(images), model(images)
    for tensor, shape in zip(first, [(8, 5), (8,), (8, model.dim)], strict=True):
        assert tensor.shape == shape
        assert tensor.dtype == torch.float32
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert (first.uncertainty > 0).all()
    # Alone or in a batch: the same.
    with torch.no_grad():
        alone = torch.cat([model(image[None]).uncertainty for image in images])
    torch.testing.assert_close(alone, first.uncertainty, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_the_loss_reaches_every_parameter_but_the_classifier_s(method, network):
    model, (images, labels) = model_of(method, network), batch()
    loss = model.loss(images, labels)
    assert loss.shape == ()
    assert loss.isfinite()
    loss.backward()
    missed = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    classifier = {id(parameter) for parameter in model.network.get_classifier().parameters()}
    assert missed == {name for name, parameter in model.named_parameters() if id(parameter) in classifier}
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    assert model.log_inv_temp.grad != 0
    if method == "hib":
        assert model.add_const.grad != 0
    if method != "infonce":
        assert all(layer.weight.grad.abs().sum() > 0 for layer in model.uncertainty.layers)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_a_few_steps_lower_the_loss_and_move_its_parameters(method, network):
    model, (images, labels) = model_of(method, network), batch()
    start = copy.deepcopy(model.state_dict())
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for step in range(12):
        torch.manual_seed(step)
        optimiser.zero_grad()
        losses.append(model.loss(images, labels))
        losses[-1].backward()
        optimiser.step()
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    learnt = [name for name in start if name in ("log_inv_temp", "add_const") or name.startswith("uncertainty.")]
    assert all(not torch.equal(start[name], model.state_dict()[name]) for name in learnt)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_float32_under_autocast(method):
    model, (images, labels) = model_of(method).eval(), batch()
    torch.manual_seed(3)
    plain = model.loss(images, labels)
    torch.manual_seed(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, prediction = model.loss(images, labels), model(images)
    assert loss.dtype == torch.float32
    assert all(tensor.dtype == torch.float32 for tensor in prediction)
    assert loss.item() == pytest.approx(plain.item(), rel=0.2)


def test_infonce_is_less_certain_of_shorter_embeddings():
    model = model_of("infonce").eval()
    images, _ = batch()
    with torch.no_grad():
        prediction = model(images)
    torch.testing.assert_close(prediction.uncertainty, 1 / prediction.embedding.square().sum(-1).sqrt())
    model.embed = lambda images: torch.tensor([[0.0, 0.0], [3.0, 4.0], [30.0, 40.0]])
    model.network.get_classifier = lambda: torch.nn.Identity()
    uncertainty = model(images).uncertainty
    assert uncertainty.isfinite().all()
    assert uncertainty[1:].tolist() == pytest.approx([0.2, 0.02])
    assert uncertainty[0] > uncertainty[1]


def test_only_the_two_infonce_methods_take_two_crops():
    assert [METHODS[method][0].two_crops for method in ("infonce", "mcinfonce", "hib")] == [True, True, False]


def test_models_start_from_their_options():
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=5)
    model = hib.Model(hib.Options(inv_temp=13.9, hib_add_const=-5.4, mc_samples=2, hidden=(8, 4)), network, 5)
    assert model.log_inv_temp.exp().item() == pytest.approx(13.9, rel=1e-6)
    assert model.add_const.item() == pytest.approx(-5.4)
    assert [layer.out_features for layer in model.uncertainty.layers] == [8, 4, 1]
    model = mcinfonce.Model(mcinfonce.Options(unc_start_value=0.001), network, 5)
    assert model(batch()[0]).uncertainty.tolist() == pytest.approx([0.001] * 8, rel=0.2)


@pytest.mark.parametrize("options", [infonce.Options, mcinfonce.Options, hib.Options])
def test_options_have_bounds_and_descriptions(options):
    assert all(field.description for name, field in options.model_fields.items() if name != "kind")
    for wrong in ({"inv_temp": 0}, {"inv_temp": math.inf}, {"inv_tmp": 1.0}, {"kind": "cross_entropy"}):
        with pytest.raises(ValidationError):
            options(**wrong)
    if options is not infonce.Options:
        for wrong in ({"mc_samples": 0}, {"hidden": ()}, {"unc_start_value": 0.0}):
            with pytest.raises(ValidationError):
                options(**wrong)
