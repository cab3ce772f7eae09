"""An upper bound on the spectral norms of a network's layers.

Miyato et al., Spectral Normalization for Generative Adversarial Networks (2018), with a bound c as in SNGP (Liu et
al., 2020) and a convolution's norm that of the linear map it is (Gouk et al., 2021), not of its reshaped kernel:

    W <- W min(1, c / sigma(W)),    sigma(W) = |A_W v|,  v the power iteration's estimate of the first right singular
    vector of the layer's linear map A_W.

Every training step does one iteration; sigma is differentiated with respect to W, at fixed v.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input
from torch.nn.utils import parametrize

from pipeline_lib.backbones.networks import TimmNetwork
from pipeline_lib.methods.hooked_layers import embed_blank_image

# Before training, whose every step adds one.
_FIRST_ITERATIONS = 5


def bound_spectral_norms(network: TimmNetwork, bound: float) -> None:
    """Bound the norms of all convolutions and linear layers of a network, in place.

    A layer's weight becomes `parametrizations.weight.original` in the state dict. The map of a convolution is that on
    inputs of the size it has where the network's image has its default size.
    """
    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    shapes: dict[str, torch.Size] = {}

    def keep_shape(name: str, inputs: Tensor) -> None:
        shapes[name] = inputs.shape[1:] if inputs.ndim == 4 else inputs.shape[-1:]

    hooks = [
        layer.register_forward_pre_hook(lambda module, args, name=name: keep_shape(name, args[0]))
        for name, layer in layers.items()
    ]
    embed_blank_image(network)
    for hook in hooks:
        hook.remove()
    # A layer that the blank image did not come through has no part in the representation.
    for name, shape in shapes.items():
        parametrize.register_parametrization(layers[name], "weight", SpectralBound(layers[name], bound, shape))


class SpectralBound(nn.Module):
    """The parametrisation of a layer's weight: W min(1, c / sigma(W)).

    Parameters
    ----------
    layer
        A convolution or a linear layer.
    bound
        c > 0.
    input_shape
        (channels, height, width) or (width,) of the layer's input.
    """

    vector: Tensor

    def __init__(self, layer: nn.Conv2d | nn.Linear, bound: float, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.bound = bound
        names = ("stride", "padding", "dilation", "groups")
        self.geometry = {name: getattr(layer, name) for name in names} if isinstance(layer, nn.Conv2d) else {}
        weight = layer.weight.detach()
        self.register_buffer("vector", _unit(torch.randn(1, *input_shape).to(weight)))
        for _ in range(_FIRST_ITERATIONS):
            self.iterate(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the bounded weight; in training mode after one more iteration. Shape and dtype stay."""
        with torch.autocast(weight.device.type, enabled=False):
            if self.training:
                self.iterate(weight)
            # An average of weights over steps also averages v, which then is shorter than 1.
            sigma = self.map(weight, _unit(self.vector)).norm()
            return weight * (self.bound / sigma.clamp(min=self.bound))

    @torch.no_grad()
    def iterate(self, weight: Tensor) -> None:
        """Do one step of the power iteration, v <- A^T A v / |A^T A v|."""
        left = _unit(self.map(weight, self.vector))
        # A new tensor each time: the last one may still be part of a graph that is to be differentiated.
        self.vector = _unit(self.adjoint(weight, left))

    def map(self, weight: Tensor, vector: Tensor) -> Tensor:
        """Return A_W v."""
        if not self.geometry:
            return vector @ weight.T
        return functional.conv2d(vector, weight, **self.geometry)

    def adjoint(self, weight: Tensor, left: Tensor) -> Tensor:
        """Return A_W^T u."""
        if not self.geometry:
            return left @ weight
        return conv2d_input(self.vector.shape, weight, left, **self.geometry)


def _unit(vector: Tensor) -> Tensor:
    """Return v / |v|; a zero vector stays."""
    return vector / vector.norm().clamp(min=torch.finfo(vector.dtype).tiny)
