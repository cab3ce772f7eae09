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
        self._count = len(heads)
        one_by_one = _one_by_one(device)
        self._together: Sequence[int | slice] = range(self._count) if one_by_one else [slice(None)]
        widths = [weight.shape[1] for weight in self._weights]
        self._input: Tensor | None = None
        self._activations = [
            torch.empty((self._count, batch_size, width), dtype=dtype, device=device) for width in widths
        ]
        self._output_gradient = torch.empty_like(self._activations[-1])
        hidden = (batch_size,) if one_by_one else (self._count, batch_size)
        self._hidden_gradients = [torch.empty((*hidden, width), dtype=dtype, device=device) for width in widths[:-1]]

    @torch.no_grad()
    def forward(self, embedding: Tensor) -> Tensor:
        """Map embeddings to uncertainties before the softplus, [S, B], a new tensor in the parameters' type.

        embedding: [S, B, d], or [B, d] for all heads, in the type of the products; kept for `backward`.
        """
        if self._product_parameters.dtype != self.parameters.dtype:
            self._product_parameters.copy_(self.parameters)
        self._input = embedding if embedding.ndim == 3 else embedding.expand(self._count, *embedding.shape)
        last = len(self._weights) - 1
        for heads in self._together:
            activation = self._input[heads]
            for layer, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
                output = self._activations[layer][heads]
                torch.matmul(activation, weight[heads].mT, out=output)
                output.add_(bias[heads].unsqueeze(-2))
                if layer < last:
                    functional.leaky_relu_(output, NEGATIVE_SLOPE)
                activation = output
        return self._activations[last].squeeze(-1).to(self.parameters.dtype, copy=True)

    @torch.no_grad()
    def backward(self, gradient: Tensor) -> None:
        """Set the gradient of all parameters from dL/dz [S, B], the gradient of what `forward` returned last."""
        inputs = [self._input, *self._activations[:-1]]
        self._output_gradient.copy_(gradient.unsqueeze(-1))
        for heads in self._together:
            output_gradient = self._output_gradient[heads]
            for layer in reversed(range(len(self._weights))):
                activation = inputs[layer][heads]
                torch.matmul(output_gradient.mT, activation, out=self._weight_gradients[layer][heads])
                torch.sum(output_gradient, -2, out=self._bias_gradients[layer][heads])
                if layer > 0:
                    input_gradient = self._hidden_gradients[layer - 1]
                    torch.matmul(output_gradient, self._weights[layer][heads], out=input_gradient)
                    # In place; a leaky ReLU's result has the sign of its input, which is all that its slope needs.
                    torch.ops.aten.leaky_relu_backward.grad_input(
                        input_gradient, activation, NEGATIVE_SLOPE, True, grad_input=input_gradient
                    )
                    output_gradient = input_gradient
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


def _one_by_one(device: torch.device) -> bool:
    """Return whether heads are computed one after the other instead of in batched products.

    On a CPU, while a head's activations are in the cache: there MKL's batched product takes 1.16 times as long as
    single ones in float32 (2 threads, the paper's sizes) and oneDNN's as long in bfloat16, and element-wise work
    on all heads would stream through memory.
    """
    return device.type == "cpu"
