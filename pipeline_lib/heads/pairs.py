"""Adjacent images of a batch as pairs: (0, 1), (2, 3), ..."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def pairs(values: Tensor) -> tuple[Tensor, Tensor]:
    """Split [..., B] into the first and the second of each pair, [..., B // 2] each; an odd last one has no partner."""
    count = values.shape[-1] // 2 * 2
    first, second = values[..., :count].unflatten(-1, (-1, 2)).unbind(-1)
    return first, second


def order_accuracy(uncertainty: Tensor, task_loss: Tensor) -> Tensor:
    """Return the share of pairs whose uncertainties are ordered like their task losses, per head.

    Pairs with equal task losses have no order and are left out; equal uncertainties count as wrong. Chance is 0.5.

    Parameters
    ----------
    uncertainty
        [S, B] or [B].
    task_loss
        [S, B] or, when all heads see the same images, [B].
    """
    first, second = pairs(uncertainty)
    first_loss, second_loss = pairs(task_loss)
    difference = first_loss - second_loss
    correct = ((first - second) * difference.sign() > 0).sum(-1)
    return correct / (difference != 0).sum(-1).clamp_(min=1)
