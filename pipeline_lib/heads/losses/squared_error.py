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
    return (uncertainty - task_loss).square().mean(-1)


def squared_error_gradient(uncertainty: Tensor, task_loss: Tensor) -> Tensor:
    """Return dL/du = 2 (u - l) / B of `squared_error_loss`, in the shape of `uncertainty`."""
    return (uncertainty - task_loss) * (2 / uncertainty.shape[-1])
