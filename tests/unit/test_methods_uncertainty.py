from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import nn

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.methods import scores
from pipeline_lib.methods.hooked_layers import HookedUncertainty, hooked, pool, pooled_widths
from pipeline_lib.methods.uncertainty import FLOOR, UncertaintyModule, inverse_softplus


def entropy_literally(logits: list[float]) -> float:
    exponentials = [math.exp(logit) for logit in logits]
    shares = [value / sum(exponentials) for value in exponentials]
    return -sum(share * math.log(share) for share in shares)


def module_literally(module: UncertaintyModule, embedding: list[float]) -> float:
    """One neuron at a time."""
    values = embedding
    for position, layer in enumerate(module.layers):
        sums = [
            sum(w * v for w, v in zip(row, values, strict=True)) + bias
            for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        ]
        last = position == len(module.layers) - 1
        values = [math.log1p(math.exp(s)) if last else max(s, 0.01 * s) for s in sums]
    return values[0] + 1e-6


def test_the_module_equals_its_literal_transcription():
    torch.manual_seed(0)
    module = UncertaintyModule(4, (5, 3)).double()
    embedding = 3 * torch.randn(6, 4, dtype=torch.float64)
    expected = [module_literally(module, row) for row in embedding.tolist()]
    assert module(embedding).tolist() == pytest.approx(expected, rel=1e-12)


def test_default_widths_and_layers_without_hidden_ones():
    assert [tuple(layer.weight.shape) for layer in UncertaintyModule(7).layers] == [
        (1024, 7), (1024, 1024), (1024, 1024), (1, 1024),
    ]  # fmt: skip
    assert UncertaintyModule(7, ())(torch.zeros(2, 7)).shape == (2,)


@pytest.mark.parametrize("start", [2e-6, 1e-3, 1.0, 50.0])
def test_an_untrained_module_starts_at_its_start_value(start):
    torch.manual_seed(0)
    uncertainty = UncertaintyModule(512, start_value=start)(torch.randn(64, 512))
    # The random last layer spreads the pre-activation by some hundredths.
    torch.testing.assert_close(uncertainty, torch.full((64,), start), rtol=0.2, atol=0)


def test_the_uncertainty_is_positive_and_finite_at_extreme_embeddings():
    torch.manual_seed(0)
    module = UncertaintyModule(8, (16,))
    embedding = torch.cat([torch.randn(4, 8) * scale for scale in (0.0, 1e-6, 1e6, 1e30)]).requires_grad_()
    uncertainty = module(embedding)
    assert uncertainty.isfinite().all() and (uncertainty >= FLOOR).all() and (1 / uncertainty).isfinite().all()
    uncertainty.log().sum().backward()
    assert embedding.grad.isfinite().all()


def test_half_precision_does_not_reach_the_module():
    torch.manual_seed(0)
    module, embedding = UncertaintyModule(8, (16,)), torch.randn(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(module(embedding), module(embedding), rtol=0, atol=0)
        assert module(embedding.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(module(embedding.bfloat16()), module(embedding.bfloat16().float()), rtol=0, atol=0)


def test_gradients_of_the_module_are_those_of_finite_differences():
    torch.manual_seed(0)
    module = UncertaintyModule(3, (5, 4), start_value=0.5).double()
    assert torch.autograd.gradcheck(module, torch.randn(4, 3, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("value", [1e-12, 1e-3, 1.0, 30.0, 1e5])
def test_the_inverse_softplus_inverts_it(value):
    x = torch.tensor(inverse_softplus(value), dtype=torch.float64)
    assert nn.functional.softplus(x).item() == pytest.approx(value, rel=1e-9)


def test_a_softplus_is_never_zero():
    with pytest.raises(ValueError, match="positive"):
        UncertaintyModule(3, start_value=1e-6)


def test_class_entropy_by_hand():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [math.log(3), 0.0, -math.inf, -math.inf], [1e6, 0.0, 0.0, -1e6]])
    expected = [math.log(4), -0.75 * math.log(0.75) - 0.25 * math.log(0.25), 0.0]
    assert scores.class_entropy(logits).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0, 30.0])
def test_scores_of_logits_equal_their_literal_transcriptions(scale):
    logits = scale * torch.randn(3, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    each = [entropy_literally(sample[0]) for sample in logits.tolist()]
    mean = logits.softmax(-1).mean(0)[0].tolist()
    mixed = -sum(share * math.log(share) for share in mean if share > 0)
    log_mean = scores.mean_log_probability(logits)
    assert scores.class_entropy(logits)[:, 0].tolist() == pytest.approx(each, abs=1e-9)
    assert log_mean.exp()[0].tolist() == pytest.approx(mean, abs=1e-12)
    assert scores.class_entropy(log_mean).item() == pytest.approx(mixed, abs=1e-9)
    divergence = scores.jensen_shannon_divergence(logits).item()
    assert divergence == pytest.approx(mixed - sum(each) / 3, abs=1e-9) and 0 <= divergence <= math.log(3) + 1e-9
    torch.testing.assert_close(scores.jensen_shannon_divergence(logits.flip(0)).item(), divergence, atol=1e-12, rtol=0)


def test_samples_that_agree_do_not_diverge_and_sure_ones_that_disagree_do_most():
    agree = torch.tensor([3.0, 1.0, 0.0]).expand(5, 2, 3)
    disagree = torch.eye(3).unsqueeze(1) * 1e6
    assert scores.jensen_shannon_divergence(agree).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert scores.jensen_shannon_divergence(disagree).item() == pytest.approx(math.log(3))


def test_a_small_divergence_over_many_classes_is_not_rounding():
    generator = torch.Generator().manual_seed(0)
    logits = 0.01 * torch.randn(10, 50, 1000, generator=generator)
    # To second order, half the mean variance of the logits: the mean over 1,000 classes has a standard error of 1.6 %.
    expected = logits.var(0, correction=0).mean(-1) / 2
    torch.testing.assert_close(scores.jensen_shannon_divergence(logits), expected, rtol=0.02, atol=0)


def test_scores_of_the_embedding():
    embedding = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3e18, 4e18]])
    inverse = scores.inverse_norm(embedding)
    assert inverse.isfinite().all() and inverse[0] == pytest.approx(0.2) and inverse[1] > inverse[0] > inverse[2] > 0
    assert scores.constant(embedding).tolist() == [1, 1, 1]


def test_outputs_are_pooled_over_positions():
    values = torch.arange(24.0)
    assert pool(values.view(2, 12), "x").shape == (2, 12)
    assert pool(values.view(2, 4, 3), "x")[0].tolist() == [4.5, 5.5, 6.5]
    assert pool(values.view(2, 3, 2, 2), "x")[0].tolist() == [1.5, 5.5, 9.5]
    with pytest.raises(PipelineError, match=r"layer 'x' cannot be hooked: its output is \[24\]"):
        pool(values, "x")
    with pytest.raises(PipelineError, match="its output is tuple"):
        pool((values, values), "x")


@pytest.mark.parametrize(
    ("name", "options", "layers", "widths"),
    [
        ("test_resnet", {}, ("layer1", "layer2.0.bn1", "layer4.0.act2"), [32, 48, 96]),
        ("test_vit", {"img_size": 32}, ("blocks.0.norm1", "blocks.3.mlp.fc1", "norm"), [64, 192, 64]),
    ],
)
def test_layers_are_hooked_by_name_and_the_network_stays_as_it_was(name, options, layers, widths):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=5, **options).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert pooled_widths(network, layers) == widths
    assert all(module.training and not module._forward_hooks for module in network.modules())
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)

    seen = {}
    module = network.get_submodule(layers[1])
    handle = module.register_forward_hook(lambda module, args, output: seen.update(output=output.detach().clone()))
    with hooked(network.eval(), layers) as outputs:
        network(torch.randn(3, 3, 32, 32))
    handle.remove()
    # A batch norm's output, which the ReLU behind it overwrites.
    torch.testing.assert_close(outputs[layers[1]], pool(seen["output"], ""), rtol=1e-5, atol=1e-6)
    uncertainty = HookedUncertainty(widths, (8, 4), start_value=0.01)([outputs[layer] for layer in layers])
    assert uncertainty.shape == (3,)
    uncertainty.sum().backward()
    assert next(network.parameters()).grad.abs().sum() > 0


def test_a_layer_that_is_not_there_or_not_passed_is_an_error():
    network = timm.create_model("test_resnet", num_classes=5)
    with pytest.raises(PipelineError, match="the network has no layer 'layr4'; did you mean 'layer4'"):
        pooled_widths(network, ("layr4",))
    with pytest.raises(PipelineError, match="the representation does not come through it"):
        pooled_widths(network, ("fc",))


def test_one_hooked_layer_is_the_plain_module_on_it():
    torch.manual_seed(0)
    one, plain = HookedUncertainty([6], (5, 4, 3)), UncertaintyModule(6, (5, 4, 3))
    plain.layers[0].load_state_dict(one.inputs[0].state_dict())
    for target, source in zip(plain.layers[1:], one.joint.layers, strict=True):
        target.load_state_dict(source.state_dict())
    embedding = torch.randn(9, 6)
    torch.testing.assert_close(one([embedding]), plain(embedding), rtol=0, atol=0)
