"""A shallow ensemble: several classifiers on one representation, which differ by where they start.

After Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles (2017), with
one network for all members as in the URL benchmark (Kirchhof et al., 2023). With heads (W_m, b_m), m = 1 ... M,

    loss = mean_m mean_i -log softmax(W_m e_i + b_m)[y_i],    p(x) = mean_m softmax(W_m e + b_m).

Uncertainty: the entropy of the mean prediction p, or the Jensen-Shannon divergence of the heads,
H(p) - mean_m H(p_m).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.backbones.networks import TimmNetwork
from pipeline_lib.methods.base import Method, Prediction
from pipeline_lib.methods.options import MethodOptions
from pipeline_lib.methods.scores import class_entropy, jensen_shannon_divergence, mean_log_probability


class Options(MethodOptions):
    """Options of the ensemble."""

    kind: Literal["ensemble"] = "ensemble"
    num_heads: int = Field(10, ge=2, description="Classifiers on the representation.")
    uncertainty: Literal["class_entropy", "jensen_shannon"] = Field(
        "class_entropy", description="Entropy of the mean prediction, or how much the heads disagree; in nats."
    )


class Model(Method):
    """A network with several classifiers, which take the place of its own."""

    def __init__(self, options: Options, network: TimmNetwork, num_classes: int) -> None:
        super().__init__(network, num_classes)
        network.reset_classifier(0)
        self.num_heads, self.score = options.num_heads, options.uncertainty
        self.heads = nn.Linear(self.dim, options.num_heads * num_classes)

    def head_logits(self, embedding: Tensor) -> Tensor:
        """Return the logits float32 [num_heads, n, classes] of embeddings float32 [n, d]."""
        return self.heads(embedding).float().unflatten(1, (self.num_heads, self.num_classes)).transpose(0, 1)

    def forward(self, images: Tensor) -> Prediction:
        """Return log mean probabilities, uncertainty and embedding of normalised images [n, 3, H, W]."""
        embedding = self.embed(images)
        logits = self.head_logits(embedding)
        mean = mean_log_probability(logits)
        uncertainty = class_entropy(mean) if self.score == "class_entropy" else jensen_shannon_divergence(logits)
        return Prediction(mean, uncertainty, embedding)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of normalised images [n, 3, H, W] with labels int64 [n]."""
        return ensemble_loss(self.head_logits(self.embed(images)), labels)


def ensemble_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over heads of their mean cross-entropies, a scalar: logits [m, n, c], labels int64 [n]."""
    return functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)))
