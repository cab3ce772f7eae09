"""InfoNCE: of all embeddings of a batch, find the one of the same image's other crop.

van den Oord et al., Representation Learning with Contrastive Predictive Coding (2018), with the negatives taken from
the batch as in SimCLR (Chen et al., 2020). With z the embeddings scaled to length 1, i' the other crop of i, and an
inverse temperature t that is learnt,

    loss = -mean_i log [ exp(t z_i . z_i') / sum_{j != i} exp(t z_i . z_j) ].

Uncertainty: 1 / |e|, the inverse of the embedding's length. The loss does not see it, nor does it see the classifier:
both are as the network comes.
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
from pipeline_lib.methods.options import Compat, MethodOptions
from pipeline_lib.methods.scores import inverse_norm


class Options(MethodOptions):
    """Options of InfoNCE."""

    kind: Literal["infonce"] = "infonce"
    inv_temp: float = Field(
        15.182859908025058,
        gt=0,
        description="Inverse temperature of the cosine similarities at the start; it is learnt.",
    )
    compat: Compat = None


class Model(Method):
    """A network trained to recognise its own images under another crop."""

    two_crops = True

    def __init__(self, options: Options, network: TimmNetwork, num_classes: int) -> None:
        super().__init__(network, num_classes)
        # Learnt as a logarithm, so that no step makes it negative.
        self.in_reference = options.compat == "reference"
        start = torch.tensor(math.log(options.inv_temp))
        self.log_inv_temp = nn.Parameter(start, requires_grad=not self.in_reference)

    def forward(self, images: Tensor) -> Prediction:
        """Return logits, uncertainty and embedding of normalised images [n, 3, H, W]."""
        embedding = self.embed(images)
        logits = self.classifier(embedding).float()
        return Prediction(logits, inverse_norm(embedding), embedding)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the InfoNCE loss of two crops [2n, 3, H, W]; the labels play no part."""
        embedding = self.embed(images)
        with torch.autocast(images.device.type, enabled=False):
            return infonce_loss(embedding, self.log_inv_temp.exp(), self.in_reference)


def infonce_loss(embedding: Tensor, inv_temp: Tensor | float, in_reference: bool = False) -> Tensor:
    """Return the mean InfoNCE loss, a scalar, computed in the embeddings' dtype.

    Parameters
    ----------
    embedding
        [2n, d], of any length: first crops of n images, then second crops of the same images.
    inv_temp
        t > 0, a scalar.
    in_reference
        Whether the ratio is that of the reference code, see `log_crop_ratio_in_reference`.

    Raises
    ------
    ValueError
        The number of embeddings is odd.
    """
    log_ratio = log_crop_ratio_in_reference if in_reference else log_crop_probability
    return -log_ratio(functional.normalize(embedding, dim=-1), inv_temp).mean()


def log_crop_probability(directions: Tensor, inv_temp: Tensor | float) -> Tensor:
    """Return the log-probability [..., 2n] with which each crop is matched to its other crop, and no other embedding.

    log softmax_{j != i} (t z_i . z_j) at j = i', the other crop of i.

    Parameters
    ----------
    directions
        z, unit vectors [..., 2n, d]: first crops of n images, then second crops of the same images. Leading dimensions
        are kept apart.
    inv_temp
        t > 0, a scalar.

    Raises
    ------
    ValueError
        The number of directions is odd.
    """
    similarity, others, other_crop = _similarities(directions, inv_temp)
    matched = similarity[..., torch.arange(len(others), device=directions.device), other_crop]
    # An embedding is no candidate for itself.
    return matched - similarity.masked_fill(~others, -torch.inf).logsumexp(-1)


def log_crop_ratio_in_reference(directions: Tensor, inv_temp: Tensor | float) -> Tensor:
    """Return what the reference code has in the place of that log-probability, [..., 2n]; it isn't one.

    log [1 + exp(t z_i . z_i')] - log [1 + sum over j other than i and i' of exp(t z_i . z_j)]

    Its masks left a similarity of 0 for i itself in both sums, and the other crop out of the second.
    """
    similarity, others, other_crop = _similarities(directions, inv_temp)
    itself = torch.arange(len(others), device=directions.device)
    matched = similarity[..., itself, other_crop]
    is_other_crop = other_crop == itself.unsqueeze(-1)
    negatives = similarity.masked_fill(~others, 0.0).masked_fill(is_other_crop, -torch.inf)
    return functional.softplus(matched) - negatives.logsumexp(-1)


def _similarities(directions: Tensor, inv_temp: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """Return t z_i . z_j [..., 2n, 2n], whether i != j [2n, 2n], and i' [2n]; raises where 2n is odd."""
    count = directions.shape[-2]
    if count % 2:
        raise ValueError(f"{count} embeddings are not two crops of each image: the number must be even")
    similarity = inv_temp * (directions @ directions.mT)
    others = ~torch.eye(count, dtype=torch.bool, device=directions.device)
    return similarity, others, torch.arange(count, device=directions.device).roll(count // 2)
