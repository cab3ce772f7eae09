"""Uncertainties that need no parameters: read off logits or the representation. Higher is less certain."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Keeps 1 / |e| finite where all of e is zero.
SHORTEST_EMBEDDING = 1e-12


def class_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of softmax(logits) in nats, -sum_c p_c log p_c: [..., c] to [...], within [0, log c]."""
    log_probability = logits.log_softmax(-1)
    # log 0 = -inf, where a logit is -inf, would give 0 * -inf.
    return -(log_probability.exp() * log_probability.clamp(min=torch.finfo(logits.dtype).min)).sum(-1)


def mean_log_probability(logits: Tensor) -> Tensor:
    """Return log (1/s sum_s softmax(logits_s)): [s, n, c] to [n, c]; serves as the logits of the mean prediction."""
    return logits.log_softmax(-1).logsumexp(0) - math.log(len(logits))


def jensen_shannon_divergence(logits: Tensor) -> Tensor:
    """Return how much s predictions disagree, H(mean_s p_s) - mean_s H(p_s), in nats: [s, n, c] to [n].

    Zero where they agree, at most log s; rounding does not make it negative. Computed in float64: two entropies of
    nearly 7 nats, for 1,000 classes, may differ in the fifth decimal, and half of that is rounding in float32.
    """
    exact = logits.double()
    divergence = class_entropy(mean_log_probability(exact)) - class_entropy(exact).mean(0)
    return divergence.clamp(min=0).to(logits.dtype)


def inverse_norm(embedding: Tensor) -> Tensor:
    """Return 1 / |e|: [..., d] to [...]; a longer representation is a surer one."""
    return 1 / embedding.norm(dim=-1).clamp(min=SHORTEST_EMBEDDING)


def constant(embedding: Tensor) -> Tensor:
    """Return 1 for each embedding, [..., d] to [...]: what any uncertainty has to beat."""
    return torch.ones_like(embedding[..., 0])
