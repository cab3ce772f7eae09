"""SNGP: a classifier that knows its distance from the training images.

Liu et al., Simple and Principled Uncertainty Estimation with Deterministic Deep Learning via Distance Awareness (2020).
Spectral normalisation keeps the network's layers from tearing distances apart (`spectral_norm`), and a Gaussian process
as the last layer turns distance into variance (`gaussian_process`):

    loss = -mean_i log softmax(B phi(e_i))[y_i],    evaluation: logits = B phi(e) / sqrt(1 + lambda var(x)).

Without spectral normalisation the method is GP.

Uncertainty: the entropy of the predicted classes, -sum_c p_c log p_c, of the evaluation's logits.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from pipeline_lib.backbones.networks import TimmNetwork
from pipeline_lib.methods.base import Method, Prediction
from pipeline_lib.methods.gaussian_process import GaussianProcess, mean_field_logits
from pipeline_lib.methods.options import Compat, MethodOptions
from pipeline_lib.methods.scores import class_entropy
from pipeline_lib.methods.spectral_norm import bound_spectral_norms

# The trace that a ridge is added to is about N as a sum over N images, and 1 as an average: features have length 1.
RIDGE_OF_SUM, RIDGE_OF_AVERAGE = 1.0, 1e-6


class Options(MethodOptions):
    """Options of SNGP and GP."""

    kind: Literal["sngp"] = "sngp"
    spectral_norm_bound: float | None = Field(
        3.0034978558109893, gt=0, description="Upper bound on each layer's spectral norm; null: none (GP)."
    )
    features: int = Field(1024, ge=1, description="Random features of the Gaussian process.")
    length_scale: float = Field(20.0, gt=0, description="Length scale of the kernel on normalised representations.")
    discount: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Discount factor of the moving average of the features' second moments; null: their sum over the "
        "last epoch.",
    )
    ridge: float | None = Field(
        None,
        ge=1e-6,
        description="Added to the diagonal of that sum, or moving average; null: 1 for the sum, 1e-6 for the average.",
    )
    compat: Compat = None
    mean_field_factor: float = Field(1.0, ge=0, description="lambda, how much the variance flattens the prediction.")


class Model(Method):
    """A network with a Gaussian process in the place of its classifier."""

    statistics = ("process.gram",)

    def __init__(self, options: Options, network: TimmNetwork, num_classes: int) -> None:
        super().__init__(network, num_classes)
        network.reset_classifier(0)
        # The Gaussian process of the reference code sees no image: its variance stays at 1e-5, as it is initialised.
        self.mean_field_factor = 0.0 if options.compat == "reference" else options.mean_field_factor
        if options.spectral_norm_bound is not None:
            bound_spectral_norms(network, options.spectral_norm_bound)
        default_ridge = RIDGE_OF_SUM if options.discount is None else RIDGE_OF_AVERAGE
        ridge = default_ridge if options.ridge is None else options.ridge
        self.process = GaussianProcess(
            self.dim, num_classes, options.features, options.length_scale, ridge, options.discount
        )

    def begin_epoch(self) -> None:
        """Start the sum over an epoch's images anew."""
        self.process.reset()

    def forward(self, images: Tensor) -> Prediction:
        """Return logits, uncertainty and embedding of normalised images [n, 3, H, W].

        The variance enters the logits in evaluation mode only: in training mode it still changes with every step.
        """
        embedding = self.embed(images)
        logits, features = self.process(embedding)
        if not self.training:
            logits = mean_field_logits(logits, self.process.variance(features), self.mean_field_factor)
        return Prediction(logits, class_entropy(logits), embedding)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of normalised images [n, 3, H, W] with labels int64 [n], in nats.

        In training mode the Gaussian process takes the images into its statistics.
        """
        if not self.training:
            return functional.cross_entropy(self(images).logits, labels)
        logits, features = self.process(self.embed(images))
        self.process.observe(features)
        return functional.cross_entropy(logits, labels)
