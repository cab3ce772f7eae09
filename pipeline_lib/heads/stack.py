"""S heads trained together: batched matrix products, written out forward and backward.

The backward pass is written by hand, because a step on one head is a few milliseconds: every array is made once and
reused, and the parameters of all heads lie in one vector, so that the optimiser, the cast to bfloat16 and the
cast of the gradient are one operation each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.heads.model import UncertaintyHead
from pipeline_lib.heads.numpy_head import NEGATIVE_SLOPE


class HeadStack:
    """Heads of one architecture with parameters [S, out, in] and biases [S, out], for training.

    `forward` gives the uncertainties before the softplus and `backward` takes their gradient:

        A_0 = x,  A_i = leaky(A_{i-1} W_i^T + b_i),  z = A_{k-1} W_k^T + b_k
        G_k = dL/dz,  dL/dW_i = G_i^T A_{i-1},  dL/db_i = sum over rows of G_i,
        G_{i-1} = (G_i W_i) * leaky'(A_{i-1})

    Parameters
    ----------
    heads
        The S heads to start from, of one architecture.
    batch_size
        B, images per step.
    dtype
        Type of the matrix products. The parameters that the optimiser sees stay in the heads' own type
        (float32); in bfloat16 the products use a copy that is renewed in each forward pass.
    device
        Where the parameters are.

    Attributes
    ----------
    parameters: the vector of all parameters; its `grad` is set by `backward`.
    """

    def __init__(
        self, heads: Sequence[UncertaintyHead], batch_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        names = [name for name, _ in heads[0].named_parameters()]
        self._shapes = {name: (len(heads), *heads[0].get_parameter(name).shape) for name in names}
        stacked = [torch.stack([head.get_parameter(name).detach() for head in heads]) for name in names]
        self.parameters = nn.Parameter(torch.cat([tensor.flatten() for tensor in stacked]).to(device))
        self.parameters.grad = torch.zeros_like(self.parameters)
        same = dtype == self.parameters.dtype
        self._product_parameters = self.parameters.detach() if same else self.parameters.detach().to(dtype)
        self._product_gradient = self.parameters.grad if same else torch.zeros_like(self._product_parameters)
        self._weights, self._biases = self._by_layer(self._product_parameters)
        self._weight_gradients, self._bias_gradients = self._by_layer(self._product_gradient)
        self._activations, self._activation_gradients = (
            [
                torch.empty((len(heads), batch_size, weight.shape[1]), dtype=dtype, device=device)
                for weight in self._weights
            ]
            for _ in range(2)
        )
        self._input: Tensor | None = None

    @torch.no_grad()
    def forward(self, embedding: Tensor) -> Tensor:
        """Map embeddings to uncertainties before the softplus, [S, B], a new tensor in the parameters' type.

        embedding: [S, B, d], or [B, d] for all heads, in the type of the products; kept for `backward`.
        """
        if self._product_parameters.dtype != self.parameters.dtype:
            self._product_parameters.copy_(self.parameters)
        heads = len(self._weights[0])
        self._input = embedding if embedding.ndim == 3 else embedding.expand(heads, *embedding.shape)
        activation = self._input
        for weight, bias, output in zip(self._weights, self._biases, self._activations, strict=True):
            _product(activation, weight.mT, output, bias)
            if output is not self._activations[-1]:
                functional.leaky_relu_(output, NEGATIVE_SLOPE)
            activation = output
        return activation.squeeze(-1).to(self.parameters.dtype, copy=True)

    @torch.no_grad()
    def backward(self, gradient: Tensor) -> None:
        """Set the gradient of all parameters from dL/dz [S, B], the gradient of what `forward` returned last."""
        inputs = [self._input, *self._activations[:-1]]
        self._activation_gradients[-1].copy_(gradient.unsqueeze(-1))
        for layer in reversed(range(len(self._weights))):
            output_gradient = self._activation_gradients[layer]
            _product(output_gradient.mT, inputs[layer], self._weight_gradients[layer])
            torch.sum(output_gradient, 1, out=self._bias_gradients[layer])
            if layer > 0:
                input_gradient = self._activation_gradients[layer - 1]
                _product(output_gradient, self._weights[layer], input_gradient)
                # In place; a leaky ReLU's result has the sign of its input, which is all that its slope needs.
                torch.ops.aten.leaky_relu_backward.grad_input(
                    input_gradient, inputs[layer], NEGATIVE_SLOPE, True, grad_input=input_gradient
                )
        if self._product_gradient is not self.parameters.grad:
            self.parameters.grad.copy_(self._product_gradient)

    def head(self, index: int) -> dict[str, Tensor]:
        """Return the state dict of one head, copied."""
        weights, biases = self._by_layer(self.parameters.detach())
        by_name = zip(self._shapes, itertools.chain.from_iterable(zip(weights, biases, strict=True)), strict=True)
        return {name: tensor[index].clone() for name, tensor in by_name}

    def _by_layer(self, vector: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return views of a parameter vector: weights [S, out, in] and biases [S, out] of each layer."""
        pieces = vector.split([math.prod(shape) for shape in self._shapes.values()])
        views = [piece.view(shape) for piece, shape in zip(pieces, self._shapes.values(), strict=True)]
        return views[0::2], views[1::2]


def _product(left: Tensor, right: Tensor, out: Tensor, bias: Tensor | None = None) -> None:
    """Write left [S, n, k] @ right [S, k, m] (+ bias [S, m]) into out [S, n, m].

    On a CPU one product per head: with two threads, MKL's batched product took 1.16 times as long in float32 at
    these sizes, and oneDNN's the same in bfloat16. On a GPU one batched product.
    """
    if left.device.type != "cpu":
        if bias is None:
            torch.bmm(left, right, out=out)
        else:
            torch.baddbmm(bias.unsqueeze(1), left, right, out=out)
        return
    for index in range(len(out)):
        if bias is None:
            torch.mm(left[index], right[index], out=out[index])
        else:
            torch.addmm(bias[index], left[index], right[index], out=out[index])
