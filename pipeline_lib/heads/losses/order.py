"""The order loss: of two images, the one with the higher task loss is to get the higher uncertainty.

Eq. 3-5 of Pretrained Visual Uncertainties, after Yoo and Kweon, Learning Loss for Active Learning (2019).
"""

from __future__ import annotations

import torch
from torch import Tensor


def order_loss(uncertainty: Tensor, task_loss: Tensor, margin: float = 0.1, leeway: float = 0.0) -> Tensor:
    """Return the mean order loss over adjacent pairs (0, 1), (2, 3), ... for each head.

    Per pair: max(0, margin - s * (u1 - u2)), with s = `pair_order(l1, l2)`. Where the leeway makes s = 0 the
    loss is the constant `margin` and its gradient zero: the pair still counts in the mean.

    Parameters
    ----------
    uncertainty
        [S, B] or [B], B even.
    task_loss
        [S, B] or, when all heads see the same images, [B].
    margin
        m, by which the two uncertainties should differ.
    leeway
        l, see `pair_order`.

    Returns
    -------
    [S] (or a scalar): a pure function that gradients flow through to `uncertainty`.
    """
    return order_loss_and_gradient(uncertainty, task_loss, margin, leeway)[0]


def order_loss_and_gradient(
    uncertainty: Tensor, task_loss: Tensor, margin: float = 0.1, leeway: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return `order_loss` and its gradient dL/du, in the shape of `uncertainty`.

    Per pair, the gradient is -s / pairs for u1 and s / pairs for u2; or 0, where the pair is ordered by the margin:
    its images have nothing more to teach. Written out, because autograd takes 0.3 ms for it, a twentieth of a
    step of one head in bfloat16.
    """
    first, second = _pairs(uncertainty)
    order = pair_order(*_pairs(task_loss), leeway)
    missing = margin - order * (first - second)
    slope = (missing.detach() > 0) * order / first.shape[-1]
    return missing.clamp(min=0).mean(-1), torch.stack([-slope, slope], -1).flatten(-2)


def pair_order(first: Tensor, second: Tensor, leeway: float = 0.0) -> Tensor:
    """Return +1 where the first task loss is larger, else -1, also where both are equal (eq. 4).

    With a leeway l > 0, eq. 5: +1 where l1 > l2 + l, -1 where l1 + l < l2, and 0 where they differ by at most l.
    """
    larger = first > second + leeway
    if leeway > 0:
        return larger.to(first.dtype) - (first + leeway < second).to(first.dtype)
    return larger.to(first.dtype).mul_(2).sub_(1)


@torch.no_grad()
def order_accuracy(uncertainty: Tensor, task_loss: Tensor) -> Tensor:
    """Return the share of adjacent pairs whose uncertainties are ordered like their task losses, per head.

    Pairs with equal task losses have no order and are left out; equal uncertainties count as wrong. Chance is
    0.5. Shapes as in `order_loss`.
    """
    first, second = _pairs(uncertainty)
    first_loss, second_loss = _pairs(task_loss)
    difference = first_loss - second_loss
    correct = ((first - second) * difference.sign() > 0).sum(-1)
    return correct / (difference != 0).sum(-1).clamp_(min=1)


def _pairs(values: Tensor) -> tuple[Tensor, Tensor]:
    """Split [..., B] into the first and the second of each adjacent pair, each [..., B / 2]."""
    return values.unflatten(-1, (-1, 2)).unbind(-1)
