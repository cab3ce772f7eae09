"""Plain loss prediction: the uncertainty is to equal the task loss (eq. 2 of Pretrained Visual Uncertainties)."""

from __future__ import annotations

from torch import Tensor


def squared_error_loss(uncertainty: Tensor, task_loss: Tensor) -> Tensor:
    """Return the mean of (u - l)^2 over the batch for each head.

    Parameters
    ----------
    uncertainty
        [S, B] or [B].
    task_loss
        [S, B] or, when all heads see the same images, [B].

    Returns
    -------
    [S] (or a scalar): a pure function that gradients flow through to `uncertainty`.
    """
    return squared_error_and_gradient(uncertainty, task_loss)[0]


def squared_error_and_gradient(uncertainty: Tensor, task_loss: Tensor) -> tuple[Tensor, Tensor]:
    """Return `squared_error_loss` and its gradient dL/du = 2 (u - l) / B, in the shape of `uncertainty`."""
    error = uncertainty - task_loss
    return error.square().mean(-1), error * (2 / uncertainty.shape[-1])
