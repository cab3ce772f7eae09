"""The products of a head in training, forward and backward, written out: what nearly all of its time goes into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.heads.numpy_head import NEGATIVE_SLOPE

# Rows with a gradient are counted in steps of this share of the batch, since oneDNN compiles a kernel for each new
# shape, and up to this share of it, since above it picking them takes as long as what it saves.
_STEP, _LIMIT = 1 / 16, 7 / 8
# Bytes; glibc keeps freed blocks up to a size that it learns from what is freed, and learns up to 32 MiB.
_LARGEST_KEPT_BLOCK = 30 * 2**20


@dataclass(frozen=True)
class Layers:
    """Weights and biases of a head, or their gradients, layer by layer."""

    weights: Sequence[Tensor]  # [out, in], or [S, out, in] for S heads
    biases: Sequence[Tensor]  # [out], or [S, out]

    def of(self, heads: int | slice) -> Layers:
        """Return views of one head (int) or several (slice)."""
        return Layers([weight[heads] for weight in self.weights], [bias[heads] for bias in self.biases])


class Workspace:
    """Memory for passes over a batch, which heads that take turns can share.

    Parameters
    ----------
    shape
        (B,) for one head, (S, B) for S heads in batched products.
    widths
        Of the representation and the hidden layers.
    dtype, device
        As of the products.
    """

    def __init__(self, shape: tuple[int, ...], widths: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.inputs = [torch.empty((*shape, width), dtype=dtype, device=device) for width in widths]
        self.gradients = [torch.empty_like(values) for values in self.inputs[1:]]


class Products:
    """Forward and backward pass of one head, or of S heads in batched products.

        A_0 = x,  A_i = leaky(A_{i-1} W_i^T + b_i),  z = A_{k-1} W_k^T + b_k
        G_k = dL/dz,  dL/dW_i = G_i^T A_{i-1},  dL/db_i = sum over rows of G_i,
        G_{i-1} = (G_i W_i) * leaky'(A_{i-1})

    The backward pass of one head is over the rows alone whose dL/dz is not zero, for zeros are all that the others
    add. With the order loss that is half of a batch, once a head has learnt most pairs. In bfloat16 on a CPU,
    bias and leaky ReLU are part of oneDNN's product.

    Parameters
    ----------
    parameters
        May be written to between the passes.
    gradients
        Of the same shapes; `backward` writes to them.
    workspace
        Is overwritten.
    """

    def __init__(self, parameters: Layers, gradients: Layers, workspace: Workspace) -> None:
        self._parameters, self._gradients, self._workspace = parameters, gradients, workspace
        self._alone = parameters.weights[0].ndim == 2
        self._fused = self._alone and _has_fused_product(parameters.weights[0])
        if self._fused:
            _keep_freed_memory()
        # Not the workspace's: the other heads' forward passes come before this one's backward pass.
        self._hidden = [] if self._fused else [torch.empty_like(values) for values in workspace.inputs[1:]]
        self._inputs: list[Tensor] = []  # A_0, ..., A_{k-1} of the last forward pass

    def forward(self, embedding: Tensor, output: Tensor) -> None:
        """Write z to `output` [B, 1] or [S, B, 1]; `embedding`, [B, d] or [S, B, d], is kept for `backward`."""
        *weights, last_weight = self._parameters.weights
        *biases, last_bias = self._parameters.biases
        self._inputs = [embedding]
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            below = self._inputs[-1]
            if self._fused:
                hidden = torch.ops.mkldnn._linear_pointwise(below, weight, bias, "leaky_relu", [NEGATIVE_SLOPE], "")
            else:
                hidden = torch.matmul(below, weight.mT, out=self._hidden[layer])
                functional.leaky_relu_(hidden.add_(bias.unsqueeze(-2)), NEGATIVE_SLOPE)
            self._inputs.append(hidden)
        if self._alone:
            torch.mv(self._inputs[-1], last_weight[0], out=output[:, 0])  # twice as fast as a product with one column
        else:
            torch.matmul(self._inputs[-1], last_weight.mT, out=output)
        output.add_(last_bias.unsqueeze(-2))

    def backward(self, gradient: Tensor) -> None:
        """Write the gradients of the parameters, from dL/dz [B, 1] or [S, B, 1] of the last forward pass."""
        inputs = self._inputs
        if self._alone:
            gradient, inputs = self._rows_with_gradient(gradient)
        rows = gradient.shape[-2]
        for layer in reversed(range(len(inputs))):
            torch.matmul(gradient.mT, inputs[layer], out=self._gradients.weights[layer])
            torch.sum(gradient, -2, out=self._gradients.biases[layer])
            if layer > 0:
                below = self._workspace.gradients[layer - 1][..., :rows, :]
                torch.matmul(gradient, self._parameters.weights[layer], out=below)
                # In place; a leaky ReLU's result has the sign of its input, which is all that its slope needs.
                torch.ops.aten.leaky_relu_backward.grad_input(
                    below, inputs[layer], NEGATIVE_SLOPE, True, grad_input=below
                )
                gradient = below

    def _rows_with_gradient(self, gradient: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the rows of dL/dz [B, 1] that are not zero, and those of the layers' inputs.

        Zeros fill up the last step. All rows are returned where most have a gradient.
        """
        rows = gradient.squeeze(-1).nonzero().squeeze(-1)
        step = max(1, int(len(gradient) * _STEP))
        count = -(-len(rows) // step) * step
        if count > len(gradient) * _LIMIT:
            return gradient, self._inputs
        picked = torch.cat([rows, rows[:1].expand(count - len(rows))])
        some = gradient.index_select(0, picked)
        some[len(rows) :] = 0
        pairs = zip(self._inputs, self._workspace.inputs, strict=True)
        return some, [torch.index_select(values, 0, picked, out=memory[:count]) for values, memory in pairs]


def _has_fused_product(weight: Tensor) -> bool:
    """Return whether oneDNN has a product with bias and activation in this type, on this processor."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _keep_freed_memory() -> None:
    """Have malloc keep what is freed instead of returning it to the system.

    The fused product has no `out`, and new memory is page faults: 0.5 ms for each 2 MB result. glibc raises its
    thresholds when a large block is freed (mallopt(3), M_MMAP_THRESHOLD); other allocators don't mind.
    """
    torch.empty(_LARGEST_KEPT_BLOCK, dtype=torch.uint8)
