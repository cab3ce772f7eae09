"""HET-XL: a classifier whose representation carries Gaussian noise, correlated and different for each image.

Collier et al., Massively Scaling Heteroscedastic Classifiers (2023). The noise has a low-rank and a diagonal part,

    eps(x) ~ N(0, Sigma(x)),  Sigma(x) = V(x) V(x)^T + diag(delta(x)),  V(x) in R^{d x r},
    p(x) = E_eps softmax((W (e + eps(x)) + b) / tau),                   loss = -mean_i log p(x_i)[y_i],

with V and delta = softplus(.) + 1e-6 linear in the representation e, the temperature tau learnt, and the expectation a
mean over samples eps = V z + sqrt(delta) * z', where z in R^r and z' in R^d are standard normal.

Uncertainty: the entropy of p, or log det Sigma(x), which by the matrix determinant lemma is
log det(I_r + V^T diag(delta)^-1 V) + sum_k log delta_k.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.backbones.networks import TimmNetwork
from pipeline_lib.config.section import Seed
from pipeline_lib.methods.base import Method, Prediction
from pipeline_lib.methods.options import FLOOR, Compat, MethodOptions
from pipeline_lib.methods.scores import class_entropy, mean_log_probability


class Options(MethodOptions):
    """Options of HET-XL."""

    kind: Literal["het_xl"] = "het_xl"
    rank: int = Field(1, ge=1, description="Rank r of the covariance's low-rank part.")
    covariance_scale: float = Field(
        0.011311824684149863, gt=0, description="Standard deviation of the covariance's initial weights."
    )
    mc_samples: int = Field(10, ge=1, description="Samples of the noise.")
    uncertainty: Literal["class_entropy", "log_determinant"] = Field(
        "class_entropy", description="Entropy of the classes in nats, or log-determinant of the covariance."
    )
    compat: Compat = None
    seed: Seed = Field(0, description="Draws the noise of the evaluation, one draw for all images.")


class Model(Method):
    """A classifier with noise on its representation."""

    def __init__(self, options: Options, network: TimmNetwork, num_classes: int) -> None:
        super().__init__(network, num_classes)
        self.rank, self.mc_samples = options.rank, options.mc_samples
        self.score, self.seed = options.uncertainty, options.seed
        self.in_reference = options.compat == "reference"
        self.covariance = nn.Linear(self.dim, self.dim * (options.rank + 1), bias=False)
        nn.init.normal_(self.covariance.weight, std=options.covariance_scale)
        self.raw_temperature = nn.Parameter(torch.ones(()))  # tau starts at softplus(1) = 1.31.

    def forward(self, images: Tensor) -> Prediction:
        """Return log mean probabilities, uncertainty and embedding of normalised images [n, 3, H, W].

        In training mode the noise is new for each image. In evaluation mode all images get the same standard normal
        draws, so that a prediction depends on neither the call nor the rest of the batch.
        """
        embedding = self.embed(images)
        with torch.autocast(images.device.type, enabled=False):
            parameters = self.covariance(embedding)
            factor = parameters[:, : -self.dim].unflatten(1, (self.dim, self.rank))
            diagonal = functional.softplus(parameters[:, -self.dim :]) + FLOOR
            noise = covariance_noise(factor, diagonal, *self._standard_normal(embedding))
        logits = self.classifier(embedding + noise).float()
        temperature = functional.softplus(self.raw_temperature) + FLOOR
        mean = mean_log_probability(logits / temperature)
        if self.score == "class_entropy":
            uncertainty = class_entropy(mean)
        else:
            uncertainty = (log_variances if self.in_reference else log_determinant)(factor, diagonal)
        return Prediction(mean, uncertainty, embedding)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of normalised images [n, 3, H, W] with labels int64 [n]."""
        return functional.nll_loss(self(images).logits, labels)

    def _standard_normal(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return z [s, n, r] and z' [s, n, d]; in evaluation mode [s, 1, r], [s, 1, d], always the same ones."""
        images, width = len(embedding) if self.training else 1, self.rank + self.dim
        generator, device = None, embedding.device
        if not self.training:
            # Drawn on the CPU: a GPU's generator would give other numbers.
            generator, device = torch.Generator().manual_seed(self.seed), torch.device("cpu")
        drawn = torch.randn(self.mc_samples, images, width, generator=generator, device=device).to(embedding.device)
        # The reference code draws one number for all dimensions.
        independent = drawn[..., self.rank : self.rank + 1] if self.in_reference else drawn[..., self.rank :]
        return drawn[..., : self.rank], independent


def covariance_noise(factor: Tensor, diagonal: Tensor, low_rank: Tensor, independent: Tensor) -> Tensor:
    """Return V z + sqrt(delta) * z', samples [s, n, d] of N(0, V V^T + diag(delta)).

    Parameters
    ----------
    factor, diagonal
        V [n, d, r] and delta > 0 [n, d].
    low_rank, independent
        z [s, n, r] and z' [s, n, d], standard normal; a second axis of 1 serves all n.
    """
    return torch.einsum("ndr,snr->snd", factor, low_rank.expand(-1, len(factor), -1)) + diagonal.sqrt() * independent


def log_determinant(factor: Tensor, diagonal: Tensor) -> Tensor:
    """Return log det(V V^T + diag(delta)), [n], of V [n, d, r] and delta > 0 [n, d]."""
    inner = factor.mT @ (factor / diagonal.unsqueeze(-1))
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return torch.linalg.slogdet(identity + inner).logabsdet + diagonal.log().sum(-1)


def log_variances(factor: Tensor, diagonal: Tensor) -> Tensor:
    """Return what the reference code takes for that log-determinant, the sum of the covariance's log-diagonal, [n]."""
    return (factor.square().sum(-1) + diagonal).log().sum(-1)
