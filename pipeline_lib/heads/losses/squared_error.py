"""Plain loss prediction: the uncertainty is to equal the task loss (eq. 2 of Pretrained Visual Uncertainties)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_lib.config.head_loss import HeadLoss

if TYPE_CHECKING:
    from torch import Tensor


class Options(HeadLoss):
    """It has none."""

    kind: Literal["squared_error"] = Field("squared_error", description="predict it (eq. 2)")


def loss_and_gradient(uncertainty: Tensor, task_loss: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    """Return the mean of (u - l)^2 over the batch for each head, and its gradient 2 (u - l) / B; see `heads.loss`."""
    error = uncertainty - task_loss
    return error.square().mean(-1), error * (2 / uncertainty.shape[-1])
