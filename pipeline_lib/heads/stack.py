"""S heads trained together.

A step on one head is a few milliseconds, so every array is made once and reused, and the parameters of all heads lie in
one vector: the optimiser, the cast to bfloat16 and the cast of the gradient are one operation each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline_lib.heads.model import UncertaintyHead
from pipeline_lib.heads.products import Layers, Products, Workspace


class HeadStack:
    """Heads of one architecture with parameters [S, out, in] and biases [S, out], for training.

    `forward` gives the uncertainties before the softplus and `backward` takes their gradient; the equations are those
    of `Products`.

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
        self._count = len(heads)
        self._shapes = {name: (self._count, *heads[0].get_parameter(name).shape) for name in names}
        stacked = [torch.stack([head.get_parameter(name).detach() for head in heads]) for name in names]
        self.parameters = nn.Parameter(torch.cat([tensor.flatten() for tensor in stacked]).to(device))
        self._gradient = torch.zeros_like(self.parameters, requires_grad=False)
        self.parameters.grad = self._gradient
        same = dtype == self.parameters.dtype
        self._product_parameters = self.parameters.detach() if same else self.parameters.detach().to(dtype)
        self._product_gradient = self._gradient if same else torch.zeros_like(self._product_parameters)
        parameters, gradients = self._by_layer(self._product_parameters), self._by_layer(self._product_gradient)

        one_by_one = _one_by_one(device)
        self._together: Sequence[int | slice] = range(self._count) if one_by_one else [slice(None)]
        shape = (batch_size,) if one_by_one else (self._count, batch_size)
        workspace = Workspace(shape, heads[0].widths, dtype, device)
        self._products = [Products(parameters.of(heads), gradients.of(heads), workspace) for heads in self._together]
        self._output, self._output_gradient = torch.empty((2, self._count, batch_size, 1), dtype=dtype, device=device)

    @torch.no_grad()
    def forward(self, embedding: Tensor) -> Tensor:
        """Map embeddings to uncertainties before the softplus, [S, B], a new tensor in the parameters' type.

        embedding: [S, B, d], or [B, d] for all heads, in the type of the products; kept for `backward`.
        """
        if self._product_parameters.dtype != self.parameters.dtype:
            self._product_parameters.copy_(self.parameters)
        embedding = embedding if embedding.ndim == 3 else embedding.expand(self._count, *embedding.shape)
        for products, heads in zip(self._products, self._together, strict=True):
            products.forward(embedding[heads], self._output[heads])
        return self._output.squeeze(-1).to(self.parameters.dtype, copy=True)

    @torch.no_grad()
    def backward(self, gradient: Tensor) -> None:
        """Set the gradient of all parameters from dL/dz [S, B], the gradient of what `forward` returned last."""
        self._output_gradient.copy_(gradient.unsqueeze(-1))
        for products, heads in zip(self._products, self._together, strict=True):
            products.backward(self._output_gradient[heads])
        if self._product_gradient is not self._gradient:
            self._gradient.copy_(self._product_gradient)

    def head(self, index: int) -> dict[str, Tensor]:
        """Return the state dict of one head, copied."""
        layers = self._by_layer(self.parameters.detach())
        by_layer = itertools.chain.from_iterable(zip(layers.weights, layers.biases, strict=True))
        return {name: tensor[index].clone() for name, tensor in zip(self._shapes, by_layer, strict=True)}

    def _by_layer(self, vector: Tensor) -> Layers:
        """Return views of a parameter vector: weights [S, out, in] and biases [S, out] of each layer."""
        pieces = vector.split([math.prod(shape) for shape in self._shapes.values()])
        views = [piece.view(shape) for piece, shape in zip(pieces, self._shapes.values(), strict=True)]
        return Layers(views[0::2], views[1::2])


def _one_by_one(device: torch.device) -> bool:
    """Return whether heads are computed one after the other instead of in batched products.

    On a CPU, while a head's activations are in the cache: there MKL's batched product takes 1.16 times as long as
    single ones in float32 (2 threads, the paper's sizes) and oneDNN's as long in bfloat16, and element-wise work
    on all heads would stream through memory.
    """
    return device.type == "cpu"
