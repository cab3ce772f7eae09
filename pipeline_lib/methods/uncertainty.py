"""The learnt uncertainty u(x) > 0: a perceptron on a representation, trained by its method's loss.

    u(e) = softplus(MLP(e)) + 1e-6

As in the URL benchmark (Kirchhof et al., 2023): three hidden layers of width 1024 with LeakyReLU(0.01). Methods whose
representations are von Mises-Fisher distributions read it as a concentration, kappa = 1 / u.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.methods.options import FLOOR

NEGATIVE_SLOPE = 0.01


class UncertaintyModule(nn.Module):
    """u(e) = softplus(MLP(e)) + 1e-6.

    Parameters
    ----------
    dim
        Width d of the representation.
    hidden
        Widths of the hidden layers.
    start_value
        u of an untrained module, up to the small spread that the random weights give it: the last bias becomes
        softplus^-1(start_value - 1e-6). None leaves that bias random, and u near log 2. It matters where u is the
        inverse of a concentration: at u = log 2, vMF distributions in 2048 dimensions are all but uniform.

    Weights come from torch's global generator.

    Raises
    ------
    ValueError
        start_value is not above 1e-6.
    """

    def __init__(self, dim: int, hidden: Sequence[int] = (1024, 1024, 1024), start_value: float | None = None) -> None:
        super().__init__()
        widths = (dim, *hidden, 1)
        layers = [nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(widths)]
        self.layers = nn.ModuleList(layers)
        if start_value is not None:
            nn.init.constant_(layers[-1].bias, inverse_softplus(start_value - FLOOR))

    def forward(self, embedding: Tensor) -> Tensor:
        """Map embeddings [n, d] of any float dtype to uncertainties [n], in the parameters' dtype also under autocast.

        In half precision many images would tie: an uncertainty is there to rank them.
        """
        with torch.autocast(embedding.device.type, enabled=False):
            activation = embedding.to(next(self.parameters()).dtype)
            for layer in self.layers[:-1]:
                activation = functional.leaky_relu(layer(activation), NEGATIVE_SLOPE)
            return functional.softplus(self.layers[-1](activation)).squeeze(-1) + FLOOR


def inverse_softplus(value: float) -> float:
    """Return x with log(1 + exp(x)) = value, without overflow at large values; raise ValueError unless value > 0."""
    if not value > 0:
        raise ValueError(f"a softplus is positive, so it is never {value}")
    return value + math.log(-math.expm1(-value))
