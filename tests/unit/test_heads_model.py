from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.heads import numpy_head
from pipeline_lib.heads import products as products_module
from pipeline_lib.heads import stack as stack_module
from pipeline_lib.heads.model import UncertaintyHead
from pipeline_lib.heads.stack import HeadStack

CPU = torch.device("cpu")


def test_the_head_is_the_papers_perceptron():
    head = UncertaintyHead(12, (5, 7), seed=3)
    reference = nn.Sequential(
        nn.Linear(12, 5), nn.LeakyReLU(0.01), nn.Linear(5, 7), nn.LeakyReLU(0.01), nn.Linear(7, 1), nn.Softplus()
    )
    reference.load_state_dict(
        {
            f"{2 * int(layer)}.{kind}": tensor
            for name, tensor in head.state_dict().items()
            for _, layer, kind in [name.split(".")]
        }
    )
    embedding = torch.randn(9, 12)
    torch.testing.assert_close(head(embedding), reference(embedding)[:, 0])
    assert [name for name, _ in UncertaintyHead(768).named_parameters()][-1] == "layers.2.bias"
    assert UncertaintyHead(768).layers[1].weight.shape == (512, 512)


def test_initial_weights_are_those_of_nn_linear_and_depend_on_the_seed_only():
    torch.manual_seed(11)
    reference = [nn.Linear(30, 20), nn.Linear(20, 1)]
    head = UncertaintyHead(30, (20,), seed=11)
    for layer, expected in zip(head.layers, reference, strict=True):
        torch.testing.assert_close(layer.weight, expected.weight)
        torch.testing.assert_close(layer.bias, expected.bias)
    assert not torch.equal(head.layers[0].weight, UncertaintyHead(30, (20,), seed=12).layers[0].weight)


def test_making_a_head_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    UncertaintyHead(4, (3,), seed=5)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("hidden", [(6,), (6, 5), (6, 5, 4)])
def test_the_stacks_products_are_those_of_its_heads_by_autograd(hidden, shared, one_by_one, monkeypatch):
    """Forward and hand-written backward in float64 against autograd through each head alone."""
    monkeypatch.setattr(stack_module, "_one_by_one", lambda device: one_by_one)
    heads = [UncertaintyHead(8, hidden, seed).double() for seed in (1, 2, 3)]
    stack = HeadStack(heads, 10, torch.float64, CPU)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):  # the second time the workspaces hold old values
        shape = (10, 8) if shared else (3, 10, 8)
        embedding = torch.randn(shape, dtype=torch.float64, generator=generator)
        weight = torch.randn(3, 10, dtype=torch.float64, generator=generator)
        logits = stack.forward(embedding).requires_grad_()
        uncertainty = functional.softplus(logits)
        stack.backward(torch.autograd.grad((weight * uncertainty).sum(), logits)[0])
        for index, head in enumerate(heads):
            alone = head(embedding if shared else embedding[index])
            torch.testing.assert_close(uncertainty[index], alone, rtol=1e-12, atol=1e-12)
            head.zero_grad()
            (weight[index] * alone).sum().backward()
        expected = torch.cat(
            [
                torch.stack([head.get_parameter(name).grad for head in heads]).flatten()
                for name, _ in heads[0].named_parameters()
            ]
        )
        torch.testing.assert_close(stack.parameters.grad, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("with_gradient", [0, 1, 20, 39, 64])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_rows_without_gradient_take_no_part_in_the_backward_pass(with_gradient, dtype):
    """What a row without gradient holds makes no difference, and the others' gradient is that of them alone."""
    head = UncertaintyHead(8, (6, 5), seed=2).double()
    generator = torch.Generator().manual_seed(with_gradient)
    embedding = torch.randn(64, 8, generator=generator).to(dtype)
    rows = torch.randperm(64, generator=generator)[:with_gradient]
    gradient = torch.zeros(1, 64, dtype=torch.float64)
    gradient[0, rows] = torch.randn(with_gradient, dtype=torch.float64, generator=generator)

    stack = HeadStack([head], 64, dtype, CPU)
    logits = stack.forward(embedding)
    stack.backward(gradient)
    found = stack.parameters.grad.clone()
    alone = head(embedding[rows].double()).expm1().log()  # undoes the softplus
    alone.backward(gradient[0, rows])
    expected = torch.cat([parameter.grad.flatten() for parameter in head.parameters()])
    exact = {"rtol": 1e-6, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 0.1, "atol": 0.05}
    torch.testing.assert_close(logits[0, rows], alone.detach(), **exact)
    torch.testing.assert_close(found, expected, **exact)

    if with_gradient < 64 * 7 / 8:  # else all rows are multiplied, by zero
        others = torch.ones(64, dtype=torch.bool).index_fill(0, rows, False)
        stack.forward(embedding.masked_fill(others[:, None], torch.nan))
        stack.backward(gradient)
        torch.testing.assert_close(stack.parameters.grad, found, rtol=0, atol=0)


def test_the_fused_product_is_product_bias_and_leaky_relu(monkeypatch):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no product in bfloat16")
    generator = torch.Generator().manual_seed(3)
    embedding = torch.randn(2, 32, 40, generator=generator).bfloat16()
    gradient = torch.randn(2, 32, generator=generator)
    passes = []
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr(products_module, "_has_fused_product", lambda weight: False)
        stack = HeadStack([UncertaintyHead(40, (24, 16), seed) for seed in (1, 2)], 32, torch.bfloat16, CPU)
        logits = stack.forward(embedding)
        stack.backward(gradient)
        passes.append((logits, stack.parameters.grad))
    (logits, found), (expected_logits, expected) = passes
    assert not torch.equal(logits, expected_logits)  # one rounding per layer instead of three
    torch.testing.assert_close(logits, expected_logits, rtol=0.02, atol=0.02)
    assert functional.cosine_similarity(found, expected, dim=0) > 0.999


def test_the_stacks_gradient_passes_gradcheck():
    stack = HeadStack([UncertaintyHead(4, (3, 3), seed).double() for seed in (0, 1)], 5, torch.float64, CPU)

    class Products(torch.autograd.Function):
        @staticmethod
        def forward(ctx, parameters, embedding):
            stack.parameters.data.copy_(parameters)
            return stack.forward(embedding)

        @staticmethod
        def backward(ctx, gradient):
            stack.backward(gradient)
            return stack.parameters.grad.clone(), None

    embedding = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    parameters = stack.parameters.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(Products.apply, (parameters, embedding))


def test_bfloat16_products_are_close_and_leave_the_parameters_in_float32():
    heads = [UncertaintyHead(32, (16, 16), seed) for seed in (1, 2)]
    exact, rounded = (HeadStack(heads, 64, dtype, CPU) for dtype in (torch.float32, torch.bfloat16))
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(64, 32, generator=generator)
    gradient = torch.randn(2, 64, generator=generator)
    torch.testing.assert_close(rounded.forward(embedding.bfloat16()), exact.forward(embedding), rtol=0.05, atol=0.05)
    exact.backward(gradient)
    rounded.backward(gradient)
    assert rounded.parameters.dtype == rounded.parameters.grad.dtype == torch.float32
    cosine = functional.cosine_similarity(rounded.parameters.grad, exact.parameters.grad, dim=0)
    assert cosine > 0.99


def test_a_head_of_a_stack_is_the_head_that_was_put_in():
    heads = [UncertaintyHead(8, (6, 5), seed) for seed in (4, 2)]
    stack = HeadStack(heads, 4, torch.float32, CPU)
    for index, head in enumerate(heads):
        state = stack.head(index)
        assert list(state) == list(head.state_dict())
        assert all(torch.equal(state[name], tensor) for name, tensor in head.state_dict().items())


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_scores_in_numpy_are_those_of_torch(dtype, monkeypatch):
    monkeypatch.setattr(numpy_head, "_BLOCK_ROWS", 7)
    head = UncertaintyHead(24, (10, 12), seed=1)
    embedding = (np.random.default_rng(0).normal(size=(30, 24)) * 30).astype(dtype)
    scores = numpy_head.score(head.to_numpy(), embedding)
    assert scores.dtype == np.float32 and scores.shape == (30,)
    expected = head(torch.from_numpy(embedding).float()).detach().numpy()
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)
    assert numpy_head.score(head.to_numpy(), embedding[:0]).shape == (0,)


@given(st.lists(st.floats(-150, 150, width=32), min_size=1))
def test_softplus_in_numpy_is_torchs(values):
    value = np.array([*values, 20, np.nextafter(np.float32(20), np.float32(21)), -1e4, 1e4], np.float32)
    with np.errstate(over="raise", invalid="raise"):
        result = numpy_head.softplus(value)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, functional.softplus(torch.from_numpy(value)).numpy(), rtol=1e-6, atol=1e-37)


def test_scores_that_cannot_be_are_errors():
    weights = UncertaintyHead(4, (3,), seed=0).to_numpy()
    with pytest.raises(PipelineError, match=r"shape \(5, 6\) does not fit a head for 4 dimensions"):
        numpy_head.score(weights, np.ones((5, 6), np.float16))
    embedding = np.ones((5, 4), np.float16)
    embedding[3, 1] = np.nan
    with pytest.raises(PipelineError, match="row 3 is nan"):
        numpy_head.score(weights, embedding)
