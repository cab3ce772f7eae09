"""The order loss: of two images, the one with the higher task loss is to get the higher uncertainty.

Eq. 3-5 of Pretrained Visual Uncertainties, after Yoo and Kweon, Learning Loss for Active Learning (2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_lib.config.head_loss import HeadLoss
from pipeline_lib.heads.pairs import pairs

if TYPE_CHECKING:
    from torch import Tensor


class Options(HeadLoss):
    """Options of the order loss."""

    kind: Literal["order"] = Field("order", description="rank pairs by task loss (eq. 3 and 4)")
    margin: float = Field(0.1, ge=0, description="m of the order loss.")
    leeway: float = Field(
        0.0, ge=0, description="l of eq. 5: pairs whose task losses differ by at most this are not ordered."
    )


def loss_and_gradient(uncertainty: Tensor, task_loss: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    """Return the mean over adjacent pairs (0, 1), (2, 3), ... for each head, and its gradient; see `heads.loss`.

    Per pair, the loss is max(0, margin - s * (u1 - u2)), with s = `pair_order(l1, l2)`. Where the leeway makes s = 0
    it is the constant `margin` and its gradient zero: the pair still counts in the mean. An odd last image has no part
    in it.

    The gradient is -s / pairs for u1 and s / pairs for u2; or 0, where the pair is ordered by the margin: its images
    have nothing more to teach. Written out, because autograd takes 0.3 ms for it, a twentieth of a step of one head in
    bfloat16.
    """
    import torch

    first, second = pairs(uncertainty)
    order = pair_order(*pairs(task_loss), options.leeway)
    missing = options.margin - order * (first - second)
    slope = (missing.detach() > 0) * order / first.shape[-1]
    gradient = torch.stack([-slope, slope], -1).flatten(-2)
    if gradient.shape != uncertainty.shape:
        gradient = torch.nn.functional.pad(gradient, (0, 1))
    return missing.clamp(min=0).mean(-1), gradient


def pair_order(first: Tensor, second: Tensor, leeway: float = 0.0) -> Tensor:
    """Return +1 where the first task loss is larger, else -1, also where both are equal (eq. 4).

    With a leeway l > 0, eq. 5: +1 where l1 > l2 + l, -1 where l1 + l < l2, and 0 where they differ by at most l.
    """
    larger = first > second + leeway
    if leeway > 0:
        return larger.to(first.dtype) - (first + leeway < second).to(first.dtype)
    return larger.to(first.dtype).mul_(2).sub_(1)
