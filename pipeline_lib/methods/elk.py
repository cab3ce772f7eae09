"""Expected likelihood kernel (ELK): cross-entropy over similarities between an image's distribution and the classes'.

Kirchhof et al., A Non-isotropic Probabilistic Take on Proxy-based Deep Metric Learning (2022), with the isotropic class
distributions of the URL benchmark (2023); the kernel is that of Jebara and Kondor (2003). An image is the von
Mises-Fisher distribution of mean mu_i, its representation scaled to length 1, and concentration kappa_i = 1 / u_i. A
class has the mean m_c, its row of the classifier scaled to length 1, and a concentration k_c, which are both learnt.

    s_ic = log integral vMF(z; mu_i, kappa_i) vMF(z; m_c, k_c) dz
         = log C_d(kappa_i) + log C_d(k_c) - log C_d(|kappa_i mu_i + k_c m_c|)
    loss = -mean_i log [ exp(s_iy) / sum_c exp(s_ic) ],   y the label of i

Uncertainty: u, learnt by a perceptron on the representation. The logits are s_ic, up to a constant for each image; the
classifier's bias plays no part.
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
from pipeline_lib.methods.von_mises_fisher import log_normaliser


class Options(MethodOptions):
    """Options of ELK."""

    kind: Literal["elk"] = "elk"
    inv_temp: float = Field(
        27.685357549319253, gt=0, description="Concentration of each class at the start; each is learnt."
    )
    hidden: Hidden = (1024, 1024, 1024)
    unc_start_value: StartValue = None
    compat: Compat = None


class Model(Method):
    """A network whose images and classes are von Mises-Fisher distributions."""

    def __init__(self, options: Options, network: TimmNetwork, num_classes: int) -> None:
        super().__init__(network, num_classes)
        self.uncertainty = UncertaintyModule(self.dim, options.hidden, options.unc_start_value)
        self.in_reference, self.inv_temp = options.compat == "reference", options.inv_temp
        # Learnt as logarithms, so that no step makes a concentration negative.
        start = torch.full((num_classes,), math.log(options.inv_temp))
        self.class_log_concentration = nn.Parameter(start, requires_grad=not self.in_reference)

    def forward(self, images: Tensor) -> Prediction:
        """Return logits, uncertainty and embedding of normalised images [n, 3, H, W].

        The logits are log-probabilities: s_ic less its logsumexp over the classes, taken before rounding to float32.
        """
        embedding = self.embed(images).float()
        uncertainty = self.uncertainty(embedding)
        with torch.autocast(images.device.type, enabled=False):
            similarity = log_expected_likelihood(embedding, 1 / uncertainty, *self._classes())
        return Prediction(similarity.log_softmax(-1).float(), uncertainty, embedding)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss, a scalar, of normalised images [n, 3, H, W] with labels int64 [n]."""
        embedding = self.embed(images).float()
        with torch.autocast(images.device.type, enabled=False):
            return elk_loss(embedding, 1 / self.uncertainty(embedding), *self._classes(), labels)

    def _classes(self) -> tuple[Tensor, Tensor]:
        mean = self.classifier.weight.float()
        if self.in_reference:
            # Tied to the length of the classifier's row, and never below where it starts.
            return mean, self.inv_temp * mean.norm(dim=-1).clamp(min=1)
        return mean, self.class_log_concentration.float().exp()


def elk_loss(
    mean: Tensor, concentration: Tensor, class_mean: Tensor, class_concentration: Tensor, labels: Tensor
) -> Tensor:
    """Return the mean of -s_iy + log sum_c exp(s_ic), a scalar in the mean's dtype.

    Parameters as of `log_expected_likelihood`; labels int64 [n].
    """
    similarity = log_expected_likelihood(mean, concentration, class_mean, class_concentration)
    return functional.cross_entropy(similarity, labels).to(mean.dtype)


def log_expected_likelihood(
    mean: Tensor, concentration: Tensor, class_mean: Tensor, class_concentration: Tensor
) -> Tensor:
    """Return s_ic, the log expected likelihood kernel of n images' and c classes' vMF distributions, float64 [n, c].

    Float64, since it is a small difference of large numbers: at a concentration of 1e6, float32 would round it to 0.1.

    Parameters
    ----------
    mean, class_mean
        [n, d] and [c, d], float32 or float64, of any length above zero: they are normalised.
    concentration, class_concentration
        kappa_i [n] and k_c [c], at least 0 and finite.

    Raises
    ------
    ValueError
        d is below 2.
    """
    dim = mean.shape[-1]
    cosine = (functional.normalize(mean, dim=-1) @ functional.normalize(class_mean, dim=-1).T).double()
    kappa, class_kappa = concentration.double().unsqueeze(-1), class_concentration.double()
    # |kappa mu + k m|^2 as a sum of terms that are not negative. It is 0 where two equal concentrations face each
    # other; the bound keeps the root's gradient finite there.
    square = (kappa - class_kappa).square() + 2 * kappa * class_kappa * (1 + cosine).clamp(min=0)
    joint = square.clamp(min=torch.finfo(torch.float64).tiny).sqrt()
    return log_normaliser(dim, kappa) + log_normaliser(dim, class_kappa) - log_normaliser(dim, joint)
