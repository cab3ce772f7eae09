"""MCInfoNCE: InfoNCE over embeddings that are distributions, not points.

Kirchhof et al., Probabilistic Contrastive Learning Recovers the Correct Aleatoric Uncertainty of Ambiguous Inputs
(2023). An image's embedding is a von Mises-Fisher distribution: its mean mu is the representation scaled to length 1,
its concentration kappa = 1 / u. With z_i ~ vMF(mu_i, kappa_i), i' the other crop of i, and an inverse temperature t
that is learnt (the paper's kappa_pos),

    loss = -mean_i log E_z [ exp(t z_i . z_i') / sum_{j != i} exp(t z_i . z_j) ].

The expectation, which the logarithm is taken of, is the mean over joint samples of the whole batch: sample s of one
embedding meets sample s of the others, so that s samples need s matrices of similarities, not s^2.

Uncertainty: u, learnt by a perceptron on the representation. The loss does not see the classifier, which stays as the
network comes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline_lib.backbones.networks import TimmNetwork
from pipeline_lib.methods.infonce import log_crop_probability, log_crop_ratio_in_reference
from pipeline_lib.methods.options import Compat, Hidden, MethodOptions, StartValue
from pipeline_lib.methods.sampled_embedding import SampledEmbedding


class Options(MethodOptions):
    """Options of MCInfoNCE."""

    kind: Literal["mcinfonce"] = "mcinfonce"
    inv_temp: float = Field(
        52.43117045513681,
        gt=0,
        description="Inverse temperature of the cosine similarities at the start; it is learnt.",
    )
    mc_samples: int = Field(16, ge=1, description="Samples of each embedding per training step.")
    hidden: Hidden = (1024, 1024, 1024)
    unc_start_value: StartValue = 0.001
    compat: Compat = None


class Model(SampledEmbedding):
    """A network whose embeddings are von Mises-Fisher distributions, trained to recognise its images' other crops."""

    two_crops = True

    def __init__(self, options: Options, network: TimmNetwork, num_classes: int) -> None:
        super().__init__(network, num_classes, options.mc_samples, options.hidden, options.unc_start_value)
        # Learnt as a logarithm, so that no step makes it negative.
        self.in_reference = options.compat == "reference"
        start = torch.tensor(math.log(options.inv_temp))
        self.log_inv_temp = nn.Parameter(start, requires_grad=not self.in_reference)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the MCInfoNCE loss of two crops [2n, 3, H, W]; the labels play no part."""
        samples = self.samples(images)
        with torch.autocast(images.device.type, enabled=False):
            return mcinfonce_loss(samples, self.log_inv_temp.exp(), self.in_reference)


def mcinfonce_loss(samples: Tensor, inv_temp: Tensor | float, in_reference: bool = False) -> Tensor:
    """Return the mean MCInfoNCE loss, a scalar, computed in the samples' dtype.

    Parameters
    ----------
    samples
        z, unit vectors [s, 2n, d]: s samples of the first crops of n images, then of the second crops of the same.
    inv_temp
        t > 0, a scalar.
    in_reference
        Whether the ratio is that of the reference code, see `infonce.log_crop_ratio_in_reference`.

    Raises
    ------
    ValueError
        The number of embeddings, 2n, is odd.
    """
    log_probability = (log_crop_ratio_in_reference if in_reference else log_crop_probability)(samples, inv_temp)
    return -(log_probability.logsumexp(0) - math.log(len(samples))).mean()
