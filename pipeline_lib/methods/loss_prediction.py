"""Loss prediction: the uncertainty is trained to equal the classifier's loss, jointly with the classifier.

Yoo and Kweon, Learning Loss for Active Learning (2019), as the URL benchmark (Kirchhof et al., 2023) uses it: with
l_i the cross-entropy of image i,

    loss = mean_i l_i + lambda * mean_i (u(x_i) - stop_gradient(l_i))^2.

The loss is a fixed target for u; the gradient of u flows on into the network.

Uncertainty: u, learnt by a perceptron on the representation, or on layers inside the network.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from pipeline_lib.backbones.networks import TimmNetwork
from pipeline_lib.methods.base import Method, Prediction
from pipeline_lib.methods.hooked_layers import HookedUncertainty, hooked, pooled_widths
from pipeline_lib.methods.options import Hidden, MethodOptions, StartValue
from pipeline_lib.methods.uncertainty import UncertaintyModule


class Options(MethodOptions):
    """Options of loss prediction."""

    kind: Literal["loss_prediction"] = "loss_prediction"
    uncertainty_weight: float = Field(
        0.04137484664752506, ge=0, description="lambda, weight of the squared error of the uncertainty."
    )
    hidden: Hidden = (1024, 1024, 1024)
    unc_start_value: StartValue = None
    layers: tuple[str, ...] = Field(
        (), description="Layers of the network that the uncertainty reads, by name; empty: the representation."
    )


class Model(Method):
    """A classifier that predicts its own loss."""

    def __init__(self, options: Options, network: TimmNetwork, num_classes: int) -> None:
        super().__init__(network, num_classes)
        self.uncertainty_weight, self.layers = options.uncertainty_weight, options.layers
        self.uncertainty = (
            HookedUncertainty(pooled_widths(network, options.layers), options.hidden, options.unc_start_value)
            if options.layers
            else UncertaintyModule(self.dim, options.hidden, options.unc_start_value)
        )

    def forward(self, images: Tensor) -> Prediction:
        """Return logits, uncertainty and embedding of normalised images [n, 3, H, W]."""
        with hooked(self.network, self.layers) as pooled:
            embedding = self.embed(images)
        logits = self.classifier(embedding).float()
        inner = [self.of_whole_batch(pooled[name]) if self.training else pooled[name] for name in self.layers]
        return Prediction(logits, self.uncertainty(inner if self.layers else embedding), embedding)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of normalised images [n, 3, H, W] with labels int64 [n]."""
        prediction = self(images)
        return loss_prediction_loss(prediction.logits, prediction.uncertainty, labels, self.uncertainty_weight)


def loss_prediction_loss(logits: Tensor, uncertainty: Tensor, labels: Tensor, weight: float) -> Tensor:
    """Return mean_i l_i + weight * mean_i (u_i - l_i)^2, a scalar, where l_i is not differentiated in the square.

    logits [n, c] and uncertainty [n], of one float dtype; labels int64 [n].
    """
    task_loss = functional.cross_entropy(logits, labels, reduction="none")
    return task_loss.mean() + weight * functional.mse_loss(uncertainty, task_loss.detach())
