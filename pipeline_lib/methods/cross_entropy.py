"""Cross-entropy: the plain classifier, and the baseline of the URL benchmark.

    loss = -mean_i log softmax(W e_i + b)[y_i]

Uncertainty: the entropy of the predicted classes, -sum_c p_c log p_c; or the inverse norm of the representation; or a
constant, which says what an uncertainty has to beat. The published calls also name an inverse temperature; nothing
reads it, so it is not here.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from pipeline_lib.backbones.networks import TimmNetwork
from pipeline_lib.methods import scores
from pipeline_lib.methods.base import Method, Prediction
from pipeline_lib.methods.options import MethodOptions


class Options(MethodOptions):
    """Options of cross-entropy."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    uncertainty: Literal["class_entropy", "inverse_norm", "constant"] = Field(
        "class_entropy", description="Entropy of the classes in nats, 1 / norm of the representation, or always 1."
    )


class Model(Method):
    """A classifier, trained with cross-entropy."""

    def __init__(self, options: Options, network: TimmNetwork, num_classes: int) -> None:
        super().__init__(network, num_classes)
        self.score = options.uncertainty

    def forward(self, images: Tensor) -> Prediction:
        """Return logits, uncertainty and embedding of normalised images [n, 3, H, W]."""
        embedding = self.embed(images)
        logits = self.classifier(embedding).float()
        read_off = logits if self.score == "class_entropy" else embedding
        return Prediction(logits, getattr(scores, self.score)(read_off), embedding)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of normalised images [n, 3, H, W] with labels int64 [n], in nats."""
        return functional.cross_entropy(self(images).logits, labels)
