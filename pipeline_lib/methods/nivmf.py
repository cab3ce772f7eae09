"""nivMF: cross-entropy over expected likelihoods of classes whose spread differs between directions.

Kirchhof et al., A Non-isotropic Probabilistic Take on Proxy-based Deep Metric Learning (2022). A class c is a
non-isotropic von Mises-Fisher distribution of mean m, a unit vector, and concentrations K = diag(k_1, ..., k_d):

    nivMF(z; m, K) = C_d(|K m|) det(K) / |K m|^d exp(|K m| cos(K m, K z)).

The paper approximates the normaliser. The one taken here is what the map z -> K z / |K z| stretches areas by at the
mean: it is exact where K is a multiple of the identity, which makes the nivMF a vMF, and at high concentrations.

An image is the vMF distribution of mean mu_i, its representation scaled to length 1, and concentration kappa_i = 1 /
u_i. With samples z_is ~ vMF(mu_i, kappa_i),

    s_ic = log mean_s nivMF(z_is; m_c, K_c),   loss = -mean_i log [ exp(s_iy) / sum_c exp(s_ic) ],   y the label of i.

Uncertainty: u, learnt by a perceptron on the representation. Class means are the classifier's rows; its bias plays no
part. Nothing is sampled at evaluation: the logits are the log-densities of mu_i, up to a constant for each image.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.backbones.networks import TimmNetwork
from pipeline_lib.methods.base import Method, Prediction
from pipeline_lib.methods.options import Compat, Hidden, MethodOptions, StartValue
from pipeline_lib.methods.uncertainty import UncertaintyModule
from pipeline_lib.methods.von_mises_fisher import log_normaliser, sample


class Options(MethodOptions):
    """Options of nivMF."""

    kind: Literal["nivmf"] = "nivmf"
    inv_temp: float = Field(
        10.896111351193488,
        gt=0,
        description="Concentration of each class in every direction at the start; it is learnt.",
    )
    mc_samples: int = Field(16, ge=1, description="Samples of each embedding per training step.")
    hidden: Hidden = (1024, 1024, 1024)
    unc_start_value: StartValue = 0.001
    compat: Compat = None


class Model(Method):
    """A network whose images are vMF distributions and whose classes are non-isotropic ones."""

    def __init__(self, options: Options, network: TimmNetwork, num_classes: int) -> None:
        super().__init__(network, num_classes)
        self.mc_samples = options.mc_samples
        self.uncertainty = UncertaintyModule(self.dim, options.hidden, options.unc_start_value)
        # Learnt as logarithms, so that no step makes a concentration negative. The reference code's stay as they start.
        start = torch.full((num_classes, self.dim), math.log(options.inv_temp))
        self.class_log_concentration = nn.Parameter(start, requires_grad=options.compat is None)

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that do not decay, the classes' concentrations among them."""
        return super().no_weight_decay() | {"class_log_concentration"}

    def forward(self, images: Tensor) -> Prediction:
        """Return logits, uncertainty and embedding of normalised images [n, 3, H, W].

        The logits are log-probabilities: log-densities less their logsumexp, taken before rounding to float32.
        """
        embedding = self.embed(images).float()
        with torch.autocast(images.device.type, enabled=False):
            density = log_density(functional.normalize(embedding, dim=-1), *self._classes())
        return Prediction(density.log_softmax(-1).float(), self.uncertainty(embedding), embedding)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss, a scalar, of normalised images [n, 3, H, W] with labels int64 [n]."""
        embedding = self.embed(images).float()
        with torch.autocast(images.device.type, enabled=False):
            samples = sample(embedding, 1 / self.uncertainty(embedding), self.mc_samples)
            return nivmf_loss(samples, *self._classes(), labels)

    def _classes(self) -> tuple[Tensor, Tensor]:
        return self.classifier.weight.float(), self.class_log_concentration.float()


def nivmf_loss(samples: Tensor, class_mean: Tensor, class_log_concentration: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of -s_iy + log sum_c exp(s_ic), a scalar in the samples' dtype.

    Parameters
    ----------
    samples
        z, unit vectors [s, n, d]: s samples of each of n images.
    class_mean, class_log_concentration
        [c, d] each, see `log_density`.
    labels
        int64 [n].
    """
    # The mean over samples is a sum here: the factor 1 / s is the same for all classes.
    similarity = log_density(samples, class_mean, class_log_concentration).logsumexp(0)
    return functional.cross_entropy(similarity, labels).to(samples.dtype)


def log_density(points: Tensor, class_mean: Tensor, class_log_concentration: Tensor) -> Tensor:
    """Return log nivMF(z; m_c, K_c) of unit vectors z [..., d] under c classes, float64 [..., c].

    Two matrix products of [..., d] with [d, c]: z^T K^2 m and |K z|^2 = (z^2)^T k^2.

    Parameters
    ----------
    points
        z, float32 or float64.
    class_mean
        m [c, d], of any length above zero: it is normalised.
    class_log_concentration
        log k [c, d].

    Raises
    ------
    ValueError
        d is below 2.
    """
    dim = points.shape[-1]
    # K scaled to determinant 1: the cosine does not see the scale, and det(K) / |K m|^d becomes |K m|^-d.
    log_scale = class_log_concentration.mean(-1, keepdim=True)
    scaled = (class_log_concentration - log_scale).exp()
    moved_mean = functional.normalize(class_mean, dim=-1) * scaled
    moved_length = moved_mean.norm(dim=-1)
    unit_mean = moved_mean / moved_length.unsqueeze(-1)
    cosine = points @ (scaled * unit_mean).T / (points.square() @ scaled.square().T).sqrt()
    length = moved_length.double() * log_scale.squeeze(-1).double().exp()
    return log_normaliser(dim, length) - dim * moved_length.double().log() + length * cosine.double()
