"""An uncertainty from inside the network: a perceptron on the outputs of any of its layers, found by their names.

The outputs are pooled over positions; each goes through a layer of its own, and what comes out is concatenated,

    u(x) = softplus(MLP([g_1(pool h_1(x)), ..., g_k(pool h_k(x))])) + 1e-6,  g_j = LeakyReLU(A_j h + b_j).

With one hooked layer this is `UncertaintyModule` on that layer; with several, the deep prediction network of URL
(Kirchhof et al., 2023).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.backbones.networks import TimmNetwork
from pipeline_lib.core.errors import PipelineError, did_you_mean
from pipeline_lib.methods.uncertainty import NEGATIVE_SLOPE, UncertaintyModule


class HookedUncertainty(nn.Module):
    """u > 0 from the pooled outputs of several layers.

    Parameters
    ----------
    widths
        Widths of the pooled outputs, as `pooled_widths` returns them.
    hidden
        The first width is that of each g_j, the others are the hidden layers after the concatenation.
    start_value
        As in `UncertaintyModule`.
    """

    def __init__(
        self, widths: Sequence[int], hidden: Sequence[int] = (1024, 1024, 1024), start_value: float | None = None
    ) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(nn.Linear(width, hidden[0]) for width in widths)
        self.joint = UncertaintyModule(hidden[0] * len(widths), hidden[1:], start_value)

    def forward(self, pooled: Sequence[Tensor]) -> Tensor:
        """Map pooled outputs, [n, widths[j]] each and of any float dtype, to uncertainties [n]."""
        with torch.autocast(pooled[0].device.type, enabled=False):
            dtype = next(self.parameters()).dtype
            parts = [layer(output.to(dtype)) for layer, output in zip(self.inputs, pooled, strict=True)]
            return self.joint(functional.leaky_relu(torch.cat(parts, dim=-1), NEGATIVE_SLOPE))


@contextmanager
def hooked(network: TimmNetwork, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that each forward pass inside the context fills with the layers' pooled outputs [n, width].

    Raises
    ------
    PipelineError
        A name is none of the network's modules.
    """
    outputs: dict[str, Tensor] = {}
    modules = dict(network.named_modules())
    for name in layers:
        if name not in modules:
            raise PipelineError(f"the network has no layer '{name}'{did_you_mean(name, modules)}")

    def keep(name: str, output: Tensor) -> None:
        # Pooled at once: a ReLU that works in place would change the output later.
        outputs[name] = pool(output, name)

    hooks = [
        modules[name].register_forward_hook(lambda module, args, output, name=name: keep(name, output))
        for name in layers
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def pool(output: Tensor, name: str) -> Tensor:
    """Return the mean over positions, [n, c], of a map [n, c, h, w] or tokens [n, t, c]; [n, c] stays.

    Raises
    ------
    PipelineError
        The output has another shape; `name` is the layer's, for that message.
    """
    if not isinstance(output, Tensor) or not 2 <= output.ndim <= 4:
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise PipelineError(
            f"layer '{name}' cannot be hooked: its output is {shape}; allowed: [n, c], [n, t, c] and [n, c, h, w]"
        )
    if output.ndim == 4:
        return output.mean((2, 3))
    return output.mean(1) if output.ndim == 3 else output


def pooled_widths(network: TimmNetwork, layers: Sequence[str]) -> list[int]:
    """Return the widths of the layers' pooled outputs, found with one blank image.

    Raises
    ------
    PipelineError
        As `hooked` and `pool`, and for a layer that the representation does not come through.
    """
    with hooked(network, layers) as outputs:
        embed_blank_image(network)
    for name in layers:
        if name not in outputs:
            raise PipelineError(f"layer '{name}' cannot be hooked: the representation does not come through it")
    return [outputs[name].shape[1] for name in layers]


@torch.no_grad()
def embed_blank_image(network: TimmNetwork) -> None:
    """Pass one blank image to the representation, so that hooks see shapes; no BatchNorm statistic moves."""
    # A ViT built for another image size than that of its pretrained weights takes that size alone.
    size = getattr(getattr(network, "patch_embed", None), "img_size", None) or network.pretrained_cfg["input_size"][1:]
    training, parameter = network.training, next(network.parameters())
    network.eval()
    image = torch.zeros(1, 3, *size, device=parameter.device, dtype=parameter.dtype)
    network.forward_head(network.forward_features(image), pre_logits=True)
    network.train(training)
