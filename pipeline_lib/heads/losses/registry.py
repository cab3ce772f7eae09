"""From the name of a loss in the config to its function."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import Tensor

from pipeline_lib.config.training import Training
from pipeline_lib.heads.losses.order import order_loss_and_gradient
from pipeline_lib.heads.losses.squared_error import squared_error_and_gradient

Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_LOSSES: dict[str, Callable[[Training], Loss]] = {
    "order": lambda training: functools.partial(
        order_loss_and_gradient, margin=training.margin, leeway=training.leeway
    ),
    "squared_error": lambda training: squared_error_and_gradient,
}


def loss_of(training: Training) -> Loss:
    """Return the loss that a recipe names.

    (uncertainty [S, B], task_loss [S, B]) -> mean per head [S] and its gradient by the uncertainty [S, B].
    """
    return _LOSSES[training.loss](training)
