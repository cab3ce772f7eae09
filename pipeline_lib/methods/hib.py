"""Hedged instance embeddings (HIB): do two images show the same class? The answer is hedged over both distributions.

Oh et al., Modeling Uncertainty with Hedged Instance Embedding (2019), on the sphere as in URL (Kirchhof et al., 2023):
an image's embedding is a von Mises-Fisher distribution, its mean mu the representation scaled to length 1, its
concentration kappa = 1 / u. Two images i and j match with the probability

    p_ij = 1/K^2 sum_k sum_l sigmoid(a z_i^k . z_j^l + b),    z_i^k ~ vMF(mu_i, kappa_i),

over all pairs of their K samples; a > 0 and b are learnt. The soft contrastive loss is -log p_ij where the labels
match and -log(1 - p_ij) where they do not. The paper draws as many matching as other pairs; a batch of images has far
fewer matching ones, so both kinds are averaged on their own and weigh the same. URL has no term that holds the
distributions close to a prior, and there is none here.

Uncertainty: u, learnt by a perceptron on the representation. The loss does not see the classifier, which stays as the
network comes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pipeline_lib.backbones.networks import TimmNetwork
from pipeline_lib.methods.options import Compat, Hidden, MethodOptions, StartValue
from pipeline_lib.methods.sampled_embedding import SampledEmbedding


class Options(MethodOptions):
    """Options of hedged instance embeddings."""

    kind: Literal["hib"] = "hib"
    inv_temp: float = Field(
        26.850376086478832, gt=0, description="a, the scale of the cosine similarities, at the start; it is learnt."
    )
    hib_add_const: float = Field(
        2.043464396656407, description="b, what is added to the scaled similarities, at the start; it is learnt."
    )
    mc_samples: int = Field(16, ge=1, description="K, samples of each embedding per training step.")
    hidden: Hidden = (1024, 1024, 1024)
    unc_start_value: StartValue = None
    compat: Compat = None


class Model(SampledEmbedding):
    """A network whose embeddings are von Mises-Fisher distributions that match where two images' labels do."""

    def __init__(self, options: Options, network: TimmNetwork, num_classes: int) -> None:
        super().__init__(network, num_classes, options.mc_samples, options.hidden, options.unc_start_value)
        # Learnt as a logarithm, so that no step makes a negative.
        self.in_reference = options.compat == "reference"
        learn = not self.in_reference
        self.log_inv_temp = nn.Parameter(torch.tensor(math.log(options.inv_temp)), requires_grad=learn)
        self.add_const = nn.Parameter(torch.tensor(options.hib_add_const), requires_grad=learn)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the soft contrastive loss of normalised images [n, 3, H, W] with labels int64 [n]."""
        samples = self.samples(images)
        with torch.autocast(images.device.type, enabled=False):
            if self.in_reference:
                return hib_loss_in_reference(samples, self.log_inv_temp.exp(), self.add_const)
            return hib_loss(samples, labels, self.log_inv_temp.exp(), self.add_const)


def hib_loss(samples: Tensor, labels: Tensor, inv_temp: Tensor, add_const: Tensor) -> Tensor:
    """Return the soft contrastive loss, a scalar, computed in the samples' dtype.

    (mean of -log p_ij over the pairs i != j with y_i = y_j + mean of -log(1 - p_ij) over those with y_i != y_j) / 2;
    the mean of no pairs is 0.

    Parameters
    ----------
    samples
        z, unit vectors [K, n, d].
    labels
        y, int64 [n].
    inv_temp, add_const
        a > 0 and b, scalars.
    """
    log_match, log_mismatch = log_match_probability(samples, inv_temp, add_const)
    same = labels[:, None] == labels[None, :]
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return -(_masked_mean(log_match, same & ~itself) + _masked_mean(log_mismatch, ~same)) / 2


def hib_loss_in_reference(samples: Tensor, inv_temp: Tensor, add_const: Tensor) -> Tensor:
    """Return the loss of the reference code, a scalar; parameters as of `hib_loss`.

    mean_i [ -log p_ii' + mean over j other than i and i' of log p_ij ],
    p_ij = mean_k sigmoid(a z_i^k . z_j^k + b) + 1e-5

    where i' is the image beside i in the batch, whatever it shows: images 1 and 2 are partners, 3 and 4, and so on; a
    last one without partner is left out. The labels play no part, and log p stands in the place of -log(1 - p).
    """
    samples = samples[:, : samples.shape[1] // 2 * 2]
    log_match = ((inv_temp * (samples @ samples.mT) + add_const).sigmoid().mean(0) + 1e-5).log()
    pair = torch.arange(len(log_match), device=samples.device) // 2
    same = pair[:, None] == pair[None, :]
    itself = torch.eye(len(pair), dtype=torch.bool, device=samples.device)
    return _masked_mean(log_match, ~same) - _masked_mean(log_match, same & ~itself)


def log_match_probability(samples: Tensor, inv_temp: Tensor, add_const: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p and log(1 - p), both [n, n], of the match of each two of n images; parameters as in `hib_loss`.

    1 - p is the mean of sigmoid(-(a z_i . z_j + b)): taken by itself it keeps its digits where p rounds to 1. All K^2
    pairs of samples need K^2 n^2 similarities. They are made for one sample of every image at a time, and made again
    for the gradient, so that only K n^2 are held at once.
    """
    sums = [
        # Nothing in there is random: there is no generator to set back.
        checkpoint(_log_sums, one, samples, inv_temp, add_const, use_reentrant=False, preserve_rng_state=False)
        for one in samples
    ]
    log_match, log_mismatch = torch.stack(sums).logsumexp(0) - 2 * math.log(len(samples))
    return log_match, log_mismatch


def _log_sums(one: Tensor, samples: Tensor, inv_temp: Tensor, add_const: Tensor) -> Tensor:
    """Return the log of the sums of p and of 1 - p [2, n, n] of one sample [n, d] against all samples [K, n, d]."""
    evidence = inv_temp * (samples @ one.mT) + add_const
    return torch.stack([functional.logsigmoid(evidence), functional.logsigmoid(-evidence)]).logsumexp(1)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the values where the mask holds, and 0 where it holds nowhere."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)
