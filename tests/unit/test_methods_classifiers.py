from __future__ import annotations

import copy
import importlib
import math

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from pipeline_lib.methods.base import Method, Prediction
from pipeline_lib.methods.ensemble import ensemble_loss
from pipeline_lib.methods.gaussian_process import (
    GaussianProcess,
    mean_field_logits,
    orthogonal_random_features,
    posterior_variance,
    random_features,
)
from pipeline_lib.methods.het_xl import covariance_noise, log_determinant
from pipeline_lib.methods.loss_prediction import loss_prediction_loss
from pipeline_lib.methods.mc_dropout import SampledDropout
from pipeline_lib.methods.scores import mean_log_probability
from pipeline_lib.methods.spectral_norm import SpectralBound

SMALL = {
    "cross_entropy": {},
    "loss_prediction": {"hidden": (32, 16)},
    "het_xl": {"covariance_scale": 0.05},
    "sngp": {"features": 64, "length_scale": 4.0},
    "mc_dropout": {"mc_samples": 3},
    "ensemble": {"num_heads": 3},
}
KINDS = tuple(SMALL)
NETWORKS = {"test_resnet": {"zero_init_last": False}, "test_vit": {"img_size": 32}}


def build(kind: str, network: str = "test_vit", **options) -> Method:
    torch.manual_seed(0)
    module = importlib.import_module(f"pipeline_lib.methods.{kind}")
    timm_model = timm.create_model(network, num_classes=5, **NETWORKS[network])
    return module.Model(module.Options(**{**SMALL[kind], **options}), timm_model, 5)


def batch(n: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 32, 32, generator=generator), torch.arange(n) % 5


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def cross_entropy_literally(logits: list[float], label: int) -> float:
    largest = max(logits)
    return math.log(sum(math.exp(logit - largest) for logit in logits)) + largest - logits[label]


pytestmark = pytest.mark.usefixtures("one_thread")


# Every method


@pytest.fixture(scope="module", params=[(kind, network) for kind in KINDS for network in NETWORKS], ids="-".join)
def model(request) -> Method:
    return build(*request.param)


def predict(model: Method, images: Tensor) -> Prediction:
    with torch.inference_mode():
        return model.eval()(images)


def test_shapes_and_dtypes(model):
    images, _ = batch()
    for prediction in (model.train()(images), predict(model, images)):
        assert [tuple(part.shape) for part in prediction] == [(6, 5), (6,), (6, model.dim)]
        assert all(part.dtype == torch.float32 and part.isfinite().all() for part in prediction)


def test_the_loss_reaches_every_parameter(model):
    images, labels = batch()
    model.train().begin_epoch()
    model.zero_grad()
    loss = model.loss(images, labels)
    loss.backward()
    assert loss.shape == () and loss.isfinite()
    reached = {name: parameter.grad is not None and parameter.grad.abs().sum() > 0 for name, parameter in
               model.named_parameters()}  # fmt: skip
    assert [name for name, hit in reached.items() if not hit] == []


def test_evaluation_depends_on_neither_the_call_nor_the_rest_of_the_batch(model):
    images, _ = batch()
    whole = predict(model, images)
    torch.manual_seed(99)
    for part, again in zip(whole, predict(model, images), strict=True):
        torch.testing.assert_close(part, again, rtol=0, atol=0)
    parts = [predict(model, images[rows].flip(0)) for rows in (slice(0, 1), slice(1, 6))]
    for part, first, rest in zip(whole, *parts, strict=True):
        torch.testing.assert_close(part, torch.cat([first, rest.flip(0)]), rtol=1e-4, atol=1e-5)


def test_a_copy_with_the_same_state_predicts_the_same(model):
    images, _ = batch()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(tuple(predict(other, images)), tuple(predict(model, images)), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss_and_ambiguous_images_become_the_uncertain_ones(kind):
    options = {"mc_dropout": {"uncertainty": "class_entropy"}, "loss_prediction": {"uncertainty_weight": 1.0}}
    model = build(kind, **options.get(kind, {}))
    pattern = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    noise = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    images = pattern.repeat_interleave(8, 0) + 0.05 * noise
    labels = torch.tensor([0] * 8 + [1, 2, 3, 4] * 2)  # The second pattern's label cannot be told.
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        model.train().begin_epoch()
        optimizer.zero_grad()
        loss = model.loss(images, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    uncertainty = predict(model, pattern).uncertainty
    assert losses[-1] < 0.7 * losses[0]
    assert uncertainty[1] > uncertainty[0] + 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_images_all_of_one_class_and_all_the_same_give_no_nan(kind):
    model = build(kind).train()
    loss = model.loss(torch.zeros(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64))
    loss.backward()
    assert loss.isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert all(part.isfinite().all() for part in predict(model, torch.full((2, 3, 32, 32), 1e4)))


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_outputs_are_float32_under_autocast_and_in_a_bfloat16_network(kind):
    model, (images, labels) = build(kind), batch()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.train().loss(images, labels)
        assert loss.dtype == torch.float32
        assert all(part.dtype == torch.float32 for part in predict(model, images))
    loss.backward()
    model.network.bfloat16()
    model.network.get_classifier().float()
    prediction = predict(model, images.bfloat16())
    assert all(part.dtype == torch.float32 and part.isfinite().all() for part in prediction)


# Cross-entropy


def test_cross_entropy_reads_any_score():
    images, _ = batch()
    entropy, norm, constant = (
        predict(build("cross_entropy", uncertainty=name), images)
        for name in ("class_entropy", "inverse_norm", "constant")
    )
    torch.testing.assert_close(entropy.uncertainty, torch.distributions.Categorical(logits=entropy.logits).entropy())
    torch.testing.assert_close(norm.uncertainty, 1 / norm.embedding.norm(dim=1))
    assert constant.uncertainty.tolist() == [1] * 6


# Loss prediction


def test_loss_prediction_by_hand():
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    # Losses log 2 and log 4/3; u is off by 0.5 and by 0.1.
    uncertainty = torch.tensor([math.log(2) + 0.5, math.log(4 / 3) - 0.1])
    loss = loss_prediction_loss(logits, uncertainty, torch.tensor([1, 0]), 0.4)
    assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2 + 0.4 * (0.25 + 0.01) / 2, abs=1e-6)


def test_loss_prediction_equals_its_literal_transcription_whatever_the_order():
    logits, uncertainty, labels = double(7, 4), double(7, seed=1).exp(), torch.arange(7) % 4
    each = [cross_entropy_literally(row, label) for row, label in zip(logits.tolist(), labels.tolist(), strict=True)]
    squared = [(u - loss) ** 2 for u, loss in zip(uncertainty.tolist(), each, strict=True)]
    expected = sum(each) / 7 + 0.3 * sum(squared) / 7
    order = torch.randperm(7)
    assert loss_prediction_loss(logits, uncertainty, labels, 0.3).item() == pytest.approx(expected, abs=1e-12)
    shuffled = loss_prediction_loss(logits[order], uncertainty[order], labels[order], 0.3)
    assert shuffled.item() == pytest.approx(expected, abs=1e-12)


def test_the_predicted_loss_is_a_fixed_target():
    logits, uncertainty, labels = double(5, 3), double(5, seed=1), torch.arange(5) % 3
    assert torch.autograd.gradcheck(lambda u: loss_prediction_loss(logits.detach(), u, labels, 0.3), uncertainty)
    (of_both,) = torch.autograd.grad(loss_prediction_loss(logits, uncertainty, labels, 0.3), logits)
    (of_task,) = torch.autograd.grad(functional.cross_entropy(logits, labels), logits)
    torch.testing.assert_close(of_both, of_task)


@pytest.mark.parametrize("u", [1e-6, 1e6])
def test_loss_prediction_at_extreme_uncertainties(u):
    logits = torch.tensor([[1e6, 0.0], [1e6, 0.0]], requires_grad=True)
    uncertainty = torch.full((2,), u, requires_grad=True)
    loss = loss_prediction_loss(logits, uncertainty, torch.tensor([0, 1]), 0.04)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all() and uncertainty.grad.isfinite().all()


@pytest.mark.parametrize("network, layers", [("test_resnet", ("layer2", "layer4.0")), ("test_vit", ("blocks.2",))])
def test_loss_prediction_from_inside_the_network(network, layers):
    model, (images, labels) = build("loss_prediction", network, layers=layers), batch()
    model.train().loss(images, labels).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.uncertainty.parameters())
    assert predict(model, images).uncertainty.shape == (6,)
    assert not any(module._forward_hooks for module in model.modules())


# Ensemble


def test_ensemble_loss_by_hand_and_its_gradient():
    logits = torch.tensor([[[0.0, 0.0]], [[math.log(3), 0.0]]])
    loss = ensemble_loss(logits, torch.tensor([1]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2, abs=1e-6)
    labels = torch.tensor([0, 2, 1])
    assert torch.autograd.gradcheck(lambda z: ensemble_loss(z, labels), double(4, 3, 3))


def test_ensemble_loss_equals_its_literal_transcription_whatever_the_order():
    logits, labels = double(3, 5, 4), torch.tensor([3, 0, 0, 1, 2])
    expected = sum(
        cross_entropy_literally(row, label)
        for head in logits.tolist() for row, label in zip(head, labels.tolist(), strict=True)
    ) / 15  # fmt: skip
    order = torch.randperm(5)
    assert ensemble_loss(logits, labels).item() == pytest.approx(expected, abs=1e-12)
    assert ensemble_loss(logits.flip(0)[:, order], labels[order]).item() == pytest.approx(expected, abs=1e-12)
    assert ensemble_loss(1e6 * logits.float(), labels).isfinite()


def test_the_ensemble_predicts_the_mean_of_its_heads():
    model, (images, _) = build("ensemble", uncertainty="jensen_shannon").eval(), batch()
    prediction = predict(model, images)
    with torch.inference_mode():
        heads = model.heads(prediction.embedding).split(5, dim=1)
    torch.testing.assert_close(prediction.logits.exp(), sum(head.softmax(-1) for head in heads) / 3)
    assert (prediction.uncertainty > 0).all()
    with torch.no_grad():
        model.heads.weight.copy_(model.heads.weight[:5].repeat(3, 1))
        model.heads.bias.copy_(model.heads.bias[:5].repeat(3))
    assert predict(model, images).uncertainty.tolist() == pytest.approx([0] * 6, abs=1e-6)


def test_replacing_the_classifier_keeps_the_representation():
    for name in NETWORKS:
        images, _ = batch()
        plain, ensemble = build("cross_entropy", name), build("ensemble", name)
        torch.testing.assert_close(predict(plain, images).embedding, predict(ensemble, images).embedding)


# HET-XL


def test_noise_by_hand_and_its_moments():
    factor, diagonal = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[4.0, 9.0]])
    noise = covariance_noise(factor, diagonal, torch.tensor([[[0.5]]]), torch.tensor([[[1.0, -1.0]]]))
    assert noise.flatten().tolist() == [0.5 + 2, 1 - 3]
    generator = torch.Generator().manual_seed(0)
    factor, diagonal = torch.randn(2, 3, 2, generator=generator), torch.rand(2, 3, generator=generator) + 0.1
    drawn = torch.randn(40000, 2, 5, generator=generator)
    noise = covariance_noise(factor, diagonal, drawn[..., :2], drawn[..., 2:])
    for i in range(2):
        expected = factor[i] @ factor[i].T + diagonal[i].diag()
        # A covariance over 40,000 draws has a relative standard error below 1 / sqrt(20,000): five of them.
        torch.testing.assert_close(noise[:, i].T.cov(), expected, rtol=0, atol=5 * expected.max().item() / 141)


def test_the_log_determinant_is_that_of_the_whole_covariance():
    factor, diagonal = double(4, 6, 3), double(4, 6, seed=1).exp()
    whole = factor @ factor.mT + torch.diag_embed(diagonal)
    torch.testing.assert_close(log_determinant(factor, diagonal), torch.logdet(whole))
    assert torch.autograd.gradcheck(lambda v, raw: log_determinant(v, functional.softplus(raw)), (factor, double(4, 6)))
    by_hand = log_determinant(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[4.0, 9.0]]))
    assert by_hand.item() == pytest.approx(math.log(5 * 13 - 4))
    for scale in (1e-6, 1e6):
        assert log_determinant(scale * factor.float(), torch.full((4, 6), 1e-6)).isfinite().all()


def test_the_het_xl_loss_equals_its_literal_transcription_and_its_gradient_is_right():
    embedding, factor, raw, weight = double(3, 4), double(3, 4, 2, seed=1), double(3, 4, seed=2), double(5, 4, seed=3)
    z, independent, labels = double(6, 3, 2, seed=4).detach(), double(6, 3, 4, seed=5).detach(), torch.tensor([4, 0, 0])
    raw_temperature = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def loss(embedding: Tensor, factor: Tensor, raw: Tensor, weight: Tensor, raw_temperature: Tensor) -> Tensor:
        noisy = embedding + covariance_noise(factor, functional.softplus(raw), z, independent)
        return functional.nll_loss(
            mean_log_probability(noisy @ weight.T / functional.softplus(raw_temperature)), labels
        )

    total = 0.0
    for i in range(3):
        probability = 0.0
        for s in range(6):
            noisy = [
                embedding[i, k].item()
                + sum(factor[i, k, r].item() * z[s, i, r].item() for r in range(2))
                + math.sqrt(math.log1p(math.exp(raw[i, k].item()))) * independent[s, i, k].item()
                for k in range(4)
            ]
            logits = [
                sum(w * e for w, e in zip(row, noisy, strict=True)) / math.log1p(math.e) for row in weight.tolist()
            ]
            probability += math.exp(-cross_entropy_literally(logits, labels[i].item())) / 6
        total -= math.log(probability) / 3
    inputs = (embedding, factor, raw, weight, raw_temperature)
    assert loss(*inputs).item() == pytest.approx(total, abs=1e-12)
    assert torch.autograd.gradcheck(loss, inputs)


def test_every_dimension_of_the_representation_has_noise_of_its_own():
    model = build("het_xl")
    for training, rows in ((True, 4), (False, 1)):
        z, independent = model.train(training)._standard_normal(torch.zeros(4, 64))
        assert z.shape == (10, rows, 1) and independent.shape == (10, rows, 64)
        assert independent.std(dim=-1).min() > 0.5


def test_a_larger_covariance_is_a_larger_uncertainty():
    model, (images, _) = build("het_xl", uncertainty="log_determinant", rank=3), batch()
    before = predict(model, images).uncertainty
    with torch.no_grad():
        model.covariance.weight[:-64] *= 10
    assert (predict(model, images).uncertainty > before).all()


# SNGP


def test_random_features_approximate_the_kernel():
    torch.manual_seed(0)
    weight = orthogonal_random_features(20000, 8).double()
    inputs = double(5, 8).detach()
    features = random_features(inputs, weight, 2 * math.pi * torch.rand(20000, dtype=torch.float64))
    kernel = (-torch.cdist(inputs, inputs).square() / 2).exp()
    # Each entry is a mean over 20,000 terms 2 cos cos, whose standard deviation is at most 1.5.
    assert (features @ features.T - kernel).abs().max() < 5 * 1.5 / math.sqrt(20000)
    block = weight[:8] @ weight[:8].T
    torch.testing.assert_close(block, block.diag().diag(), atol=1e-5, rtol=0)
    # Rows are as long as Gaussian ones: the mean of chi^2_8.
    assert weight.square().sum(1).mean().item() == pytest.approx(8, abs=5 * 4 / math.sqrt(20000))
    assert orthogonal_random_features(3, 8).shape == (3, 8)


def test_posterior_variance_by_hand_and_by_the_whole_inverse():
    gram = torch.tensor([[3.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    by_hand = posterior_variance(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), gram, 1.0)
    assert by_hand.tolist() == pytest.approx([1.0, 1.0])
    train, test = double(30, 6).detach(), double(4, 6, seed=1).detach()
    inverse = torch.linalg.inv(train.T @ train + 0.5 * torch.eye(6, dtype=torch.float64))
    expected = [
        0.5 * sum(a[j] * a[k] * inverse[j, k].item() for j in range(6) for k in range(6)) for a in test.tolist()
    ]
    assert posterior_variance(test, train.T @ train, 0.5).tolist() == pytest.approx(expected, rel=1e-10)
    assert torch.autograd.gradcheck(
        lambda z: mean_field_logits(z, torch.tensor([1.0, 3.0]).double(), 0.4), double(2, 3)
    )
    assert mean_field_logits(torch.tensor([[6.0, 3.0]]), torch.tensor([4.0]), 2.0).tolist() == [[2.0, 1.0]]


def test_the_variance_is_small_at_training_images_and_one_far_from_them():
    torch.manual_seed(0)
    process = GaussianProcess(16, 5, features=256, length_scale=1.0, ridge=1.0, discount=None)
    train, far = torch.randn(1, 16), torch.randn(1, 16)
    for _ in range(100):
        process.observe(process(train)[1])
    near, away = process.variance(process(torch.cat([train, far]))[1])
    assert near < 0.02 and away == pytest.approx(1, abs=0.2)
    # By Sherman and Morrison; a ridge that a float32 Gram matrix would lose.
    squared = process(train)[1].double().square().sum()
    assert posterior_variance(process(train)[1].double(), process.gram, 1e-6).item() == pytest.approx(
        (1e-6 * squared / (1e-6 + 100 * squared)).item(), rel=1e-4
    )


def test_statistics_are_a_sum_that_is_reset_or_a_moving_average():
    torch.manual_seed(0)
    first, second = torch.randn(6, 8), torch.randn(4, 8)
    exact, average = (GaussianProcess(3, 5, 8, 1.0, 1.0, discount) for discount in (None, 0.9))
    for process in (exact, average):
        process.observe(first[torch.randperm(6)])
        process.observe(second)
    first, second = first.double(), second.double()
    both = torch.cat([first, second])
    torch.testing.assert_close(exact.gram, both.T @ both)
    torch.testing.assert_close(average.gram, 0.9 * 0.1 * first.T @ first / 6 + 0.1 * second.T @ second / 4)
    before = average.gram.clone()
    exact.reset()
    average.reset()
    assert exact.gram.abs().max() == 0 and torch.equal(average.gram, before)


def test_only_losses_of_training_enter_the_statistics_and_flatten_the_logits():
    model, (images, labels) = build("sngp"), batch()
    model.train()(images)
    model.eval().loss(images, labels)
    assert model.process.gram.abs().max() == 0
    flat = predict(model, images).logits
    model.train().loss(images, labels)
    assert model.process.gram.trace() > 0
    assert (predict(model, images).logits.abs() > flat.abs()).all()
    model.begin_epoch()
    assert model.process.gram.abs().max() == 0
    assert not any("parametrizations" in name for name, _ in build("sngp", spectral_norm_bound=None).named_parameters())


def dense(layer: SpectralBound, weight: Tensor) -> Tensor:
    """The layer's linear map as a matrix, a column for each unit vector."""
    shape = layer.vector.shape[1:]
    units = torch.eye(shape.numel(), dtype=weight.dtype).view(-1, *shape)
    return layer.map(weight, units).flatten(1).T


LAYERS = {
    "linear": (lambda: nn.Linear(7, 9), (7,)),
    "conv": (lambda: nn.Conv2d(3, 4, 3, padding=1), (3, 6, 6)),
    "strided": (lambda: nn.Conv2d(4, 6, 3, stride=2, groups=2), (4, 7, 7)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_spectral_norm_is_that_of_the_layers_linear_map(name):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make().double()
    bounded = SpectralBound(layer, 0.1, shape)
    weight = layer.weight.detach()
    for _ in range(300):
        bounded.iterate(weight)
    sigma = torch.linalg.matrix_norm(dense(bounded, weight), 2).item()
    assert bounded.map(weight, bounded.vector).norm().item() == pytest.approx(sigma, rel=1e-4)
    assert torch.linalg.matrix_norm(dense(bounded, bounded(weight)), 2).item() == pytest.approx(0.1, rel=1e-4)
    bounded.bound = 100.0
    torch.testing.assert_close(bounded(weight), weight, rtol=0, atol=0)
    bounded.eval().bound = 0.1
    once = bounded(weight)
    bounded.vector *= 0.3
    torch.testing.assert_close(bounded(weight), once)
    zero = torch.zeros_like(weight).requires_grad_()
    (gradient,) = torch.autograd.grad(SpectralBound(layer, 0.1, shape)(zero).sum(), zero)
    assert gradient.isfinite().all()
    assert torch.autograd.gradcheck(bounded, weight.requires_grad_())


def test_every_layer_of_the_network_is_bounded():
    model = build("sngp", "test_resnet", spectral_norm_bound=0.5)
    layers = [module for module in model.network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) > 10 and all(parametrize.is_parametrized(layer, "weight") for layer in layers)
    assert layers[1].weight.norm() < layers[1].parametrizations.weight.original.norm()


# MC dropout


def test_a_batch_has_one_mask_at_evaluation_and_one_for_each_image_in_training():
    torch.manual_seed(0)
    dropout = SampledDropout(0.3)
    assert torch.equal(dropout.eval()(torch.ones(2, 5)), torch.ones(2, 5))
    dropout.generator = torch.Generator().manual_seed(5)
    evaluated = dropout(torch.ones(3, 10000))
    assert torch.equal(evaluated[0], evaluated[1]) and torch.equal(evaluated[0], evaluated[2])
    trained = dropout.train()(torch.ones(2, 10000))
    assert not torch.equal(trained[0], trained[1])
    for kept in (evaluated[0], trained[0], trained[1]):
        assert kept.unique().tolist() == pytest.approx([0, 1 / 0.7])
        assert (kept == 0).float().mean().item() == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 10000))


@pytest.mark.parametrize("network, places", [("test_resnet", 9 + 1), ("test_vit", 1 + 6 * 3 + 1)])
def test_dropout_is_on_at_evaluation_everywhere(network, places):
    model, (images, _) = build("mc_dropout", network, drop_rate=0.3), batch()
    dropouts = [module for module in model.modules() if isinstance(module, SampledDropout)]
    assert len(dropouts) == places
    drawn = []
    for module in dropouts:
        module.register_forward_hook(lambda module, args, output: drawn.append((output == 0).float().mean().item()))
    prediction = predict(model, images)
    assert len(drawn) == 3 * places and min(drawn) > 0.1
    assert (prediction.uncertainty > 1e-4).all()
    assert all(module.generator is None for module in dropouts)
    other = build("mc_dropout", network, drop_rate=0.3, seed=1)
    assert not torch.equal(predict(other, images).logits, prediction.logits)


def test_more_samples_approach_their_expectation():
    images, _ = batch(2)
    draws = ((4, 0), (64, 0), (64, 1))
    few, many, other = (predict(build("mc_dropout", mc_samples=n, seed=seed), images).logits.exp() for n, seed in draws)
    assert (many - other).abs().max() < (few - other).abs().max()


def test_dropout_does_not_rename_what_the_network_learns():
    for name, options in NETWORKS.items():
        plain = timm.create_model(name, num_classes=5, **options)
        assert set(build("mc_dropout", name).network.state_dict()) == set(plain.state_dict())
