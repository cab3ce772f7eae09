"""What a head's loss computes, whichever it is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline_lib.config import kinds
from pipeline_lib.config.head_loss import HasHeadLoss

if TYPE_CHECKING:
    from torch import Tensor

    Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def loss_of(section: HasHeadLoss) -> Loss:
    """Return the loss that a recipe names.

    Returns
    -------
    A function of `uncertainty`, [S, B] or [B], and `task_loss`, [S, B] or, when all heads see the same images, [B]. It
    returns the mean over the batch for each head, [S] or a scalar, and its gradient by the uncertainty, in the shape of
    that. It is pure, and gradients flow through the mean to the uncertainty.
    """
    module = kinds.load("heads.losses", section.loss.kind)
    return functools.partial(module.loss_and_gradient, options=section.loss)
