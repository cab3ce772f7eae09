"""Networks whose embeddings are von Mises-Fisher distributions, and whose losses are of samples of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.backbones.networks import TimmNetwork
from pipeline_lib.methods import von_mises_fisher
from pipeline_lib.methods.base import Method, Prediction
from pipeline_lib.methods.options import Hidden, StartValue
from pipeline_lib.methods.uncertainty import UncertaintyModule


class SampledEmbedding(Method):
    """vMF(mu, 1 / u) with mu the representation scaled to length 1 and u learnt from it; the classifier is not trained.

    mc_samples: samples of each embedding per training step. hidden, unc_start_value: of the uncertainty module.
    """

    def __init__(
        self, network: TimmNetwork, num_classes: int, mc_samples: int, hidden: Hidden, unc_start_value: StartValue
    ) -> None:
        super().__init__(network, num_classes)
        self.mc_samples = mc_samples
        self.uncertainty = UncertaintyModule(self.dim, hidden, unc_start_value)

    def forward(self, images: Tensor) -> Prediction:
        """Return logits, uncertainty and embedding of normalised images [n, 3, H, W]; nothing is sampled."""
        embedding = self.embed(images)
        logits = self.classifier(embedding).float()
        return Prediction(logits, self.uncertainty(embedding), embedding)

    def samples(self, images: Tensor) -> Tensor:
        """Return unit vectors, float32 [mc_samples, n, d], drawn for normalised images [n, 3, H, W]."""
        embedding = self.embed(images)
        with torch.autocast(images.device.type, enabled=False):
            mean = functional.normalize(embedding, dim=-1)
            return von_mises_fisher.sample(mean, 1 / self.uncertainty(embedding), self.mc_samples)
