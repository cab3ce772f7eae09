"""The uncertainty head: a small perceptron on a frozen backbone's representation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.heads.numpy_head import NEGATIVE_SLOPE


class UncertaintyHead(nn.Module):
    """One head u(e): Linear, LeakyReLU(0.01), Linear, LeakyReLU(0.01), Linear, Softplus.

    Appendix A of Pretrained Visual Uncertainties, there with two hidden layers of width 512. The state dict
    (and a checkpoint) has the keys `layers.0.weight` [hidden, d], `layers.0.bias` [hidden], `layers.1.weight`, ...

    Parameters
    ----------
    dim
        Width d of the representation.
    hidden
        Widths of the hidden layers.
    seed
        Draws the initial weights from nn.Linear's default distribution, U(-1/sqrt(in), 1/sqrt(in)); nothing else
        enters the draw, so a head starts the same whichever heads are trained beside it.
    initialisation
        `default` as above, or `zero`: all weights and biases are zero.

    Attributes
    ----------
    widths: of what each layer reads: d, then the hidden widths.
    """

    def __init__(
        self, dim: int, hidden: Sequence[int] = (512, 512), seed: int = 0, initialisation: str = "default"
    ) -> None:
        super().__init__()
        self.widths = (dim, *hidden)
        # Made empty on the meta device, so that building a head does not advance torch's global generator.
        layers = [nn.Linear(*pair, device="meta") for pair in itertools.pairwise((*self.widths, 1))]
        self.layers = nn.ModuleList(layers).to_empty(device="cpu")
        generator = torch.Generator().manual_seed(seed)
        for layer in layers:
            bound = 0.0 if initialisation == "zero" else 1 / math.sqrt(layer.in_features)
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)

    def forward(self, embedding: Tensor) -> Tensor:
        """Map embeddings [n, d] to uncertainties [n]."""
        activation = embedding
        for layer in self.layers[:-1]:
            activation = functional.leaky_relu(layer(activation), NEGATIVE_SLOPE)
        return functional.softplus(self.layers[-1](activation)).squeeze(-1)

    def to_numpy(self) -> dict[str, np.ndarray]:
        """Return the state dict as float32 arrays, as `numpy_head.score` and checkpoints take them."""
        return {name: tensor.detach().float().cpu().numpy().copy() for name, tensor in self.state_dict().items()}
