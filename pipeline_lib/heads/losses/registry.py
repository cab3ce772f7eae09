"""From the name of a loss in the config to its functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from pipeline_lib.config.training import Training
from pipeline_lib.heads.losses.order import order_loss, order_loss_gradient
from pipeline_lib.heads.losses.squared_error import squared_error_gradient, squared_error_loss


class Loss(NamedTuple):
    """A loss of uncertainties [S, B] and task losses [S, B]."""

    value: Callable[[Tensor, Tensor], Tensor]  # mean per head [S]
    gradient: Callable[[Tensor, Tensor], Tensor]  # of a head's value by its uncertainties, [S, B]


def loss_of(training: Training) -> Loss:
    """Return the loss that a recipe names."""
    if training.loss == "squared_error":
        return Loss(squared_error_loss, squared_error_gradient)
    return Loss(
        functools.partial(order_loss, margin=training.margin, leeway=training.leeway),
        functools.partial(order_loss_gradient, margin=training.margin, leeway=training.leeway),
    )
