"""Parts of a network that training never moves."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from pipeline_lib.errors import PipelineError, did_you_mean


def freeze(network: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Freeze parts of a timm network; return its frozen modules, which must stay in evaluation mode.

    A frozen parameter gets no gradient. A module keeps its statistics (BatchNorm's, spectral normalisation's) only in
    evaluation mode, which also turns its dropout off: it computes what it does in a trained model.

    names: of modules or single parameters, as `named_modules` and `named_parameters` have them; everything below a
    module is part of it. Raises `PipelineError` for a name that is neither.
    """
    modules, parameters = dict(network.named_modules()), dict(network.named_parameters())
    frozen = []
    for name in names:
        if name in modules and name != "":
            frozen.append(modules[name].requires_grad_(False))
        elif name in parameters:
            parameters[name].requires_grad_(False)
        else:
            parts = dict.fromkeys(each.partition(".")[0] for each in [*modules, *parameters] if each)
            raise PipelineError(
                f"training.frozen: the network has no part '{name}'; its parts are {', '.join(parts)}, and what is "
                f"inside them{did_you_mean(name, [*modules, *parameters])}"
            )
    return frozen
