"""From the name of a loss in the config to its function."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import Tensor

from pipeline_lib.config.training import Training
from pipeline_lib.heads.losses.order import order_loss
from pipeline_lib.heads.losses.squared_error import squared_error_loss

Loss = Callable[[Tensor, Tensor], Tensor]

_LOSSES: dict[str, Callable[[Training], Loss]] = {
    "order": lambda training: functools.partial(order_loss, margin=training.margin, leeway=training.leeway),
    "squared_error": lambda training: squared_error_loss,
}


def loss_of(training: Training) -> Loss:
    """Return the loss that a recipe names: (uncertainty [S, B], task_loss [S, B]) -> mean per head [S]."""
    return _LOSSES[training.loss](training)
