"""Parts of a network that training never moves."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.utils import parametrize

from pipeline_lib.core.errors import PipelineError, did_you_mean


def freeze(network: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Freeze parts of a timm network; return its frozen modules, which must stay in evaluation mode.

    A frozen parameter gets no gradient. A module keeps its statistics (BatchNorm's, spectral normalisation's) only in
    evaluation mode, which also turns its dropout off while the rest is trained.

    Parameters
    ----------
    network
        Its parts are frozen in place.
    names
        Modules or single parameters, as `named_modules` and `named_parameters` of timm's network have them, also where
        a method bounds a layer's weight; everything below a module is part of it.

    Raises
    ------
    PipelineError
        A name is neither, or a module holds nothing, such as a classifier that the method has replaced.
    """
    parameters = dict(network.named_parameters())
    modules = {name: module for name, module in network.named_modules() if name}
    for name, module in list(modules.items()):
        if parametrize.is_parametrized(module):
            # A bounded weight: the parameter, and the statistics of its bound, are one module behind the old name.
            modules |= {f"{name}.{tensor}": behind for tensor, behind in module.parametrizations.items()}
    filled = {name: module for name, module in modules.items() if module.state_dict()}
    frozen = []
    for name in names:
        if name in filled:
            frozen.append(filled[name].requires_grad_(False))
        elif name in parameters:
            parameters[name].requires_grad_(False)
        else:
            fault = f"'{name}' holds nothing to train" if name in modules else f"the network has no part '{name}'"
            parts = dict.fromkeys(name.partition(".")[0] for name in [*filled, *parameters])
            raise PipelineError(
                f"training.frozen: {fault}; with this method the network's parts are {', '.join(parts)}, and what is "
                f"inside them{did_you_mean(name, [*filled, *parameters])}"
            )
    return frozen
