"""A Gaussian process with an RBF kernel as a network's last layer, in random features.

Liu et al., Simple and Principled Uncertainty Estimation with Deterministic Deep Learning via Distance Awareness (2020).
With m random features (Rahimi and Recht, 2007) of the layer-normalised representation h,

    phi(h) = sqrt(2 / m) cos(W h / l + b),  phi(h) . phi(h') ~ exp(-|h - h'|^2 / 2 l^2),    logits = B phi(h),

W is fixed, orthogonal in blocks, with the row lengths of a Gaussian matrix (Yu et al., Orthogonal Random Features,
2016), b fixed, uniform on [0, 2 pi). The posterior variance of a logit is, by Laplace's method with the likelihood's
curvature taken as 1, that of ridge regression on the training images' features Phi:

    var(x) = s phi(x)^T (Phi^T Phi + s I)^-1 phi(x),    mean-field logits = logits / sqrt(1 + lambda var).

Far from all training images var is 1, and it falls the more of them lie close.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class GaussianProcess(nn.Module):
    """The layer: logits, and the statistics of the training images that the variance needs.

    Parameters
    ----------
    dim, num_classes
        Widths of the representation and of the logits.
    features
        m, the number of random features.
    length_scale
        l of the kernel. A layer-normalised representation starts with length sqrt(dim).
    ridge
        s > 0, what the Gram matrix of the features is compared to. Its trace is about the number of images where it is
        a sum, and about 1 where it is a moving average: a ridge of 1 / N there is one of 1 for a sum over N images.
    discount
        None: Phi^T Phi is the sum over all images since `reset`. A number within [0, 1): it is the moving average of
        batch means, (1 - discount) times the new one plus discount times what was before, and `reset` does nothing.

    The state dict holds the random features and the Gram matrix.
    """

    weight: Tensor
    phase: Tensor
    gram: Tensor

    def __init__(
        self, dim: int, num_classes: int, features: int, length_scale: float, ridge: float, discount: float | None
    ) -> None:
        super().__init__()
        self.ridge, self.discount = ridge, discount
        self.norm = nn.LayerNorm(dim)
        self.register_buffer("weight", orthogonal_random_features(features, dim) / length_scale)
        self.register_buffer("phase", 2 * math.pi * torch.rand(features))
        self.output = nn.Linear(features, num_classes, bias=False)
        nn.init.normal_(self.output.weight)
        # Summed in float64: the rounding errors of a sum in float32 can outweigh a small ridge, and turn it negative.
        self.register_buffer("gram", torch.zeros(features, features, dtype=torch.float64))

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [n, classes] and random features [n, m] of embeddings float32 [n, d], also under autocast."""
        # In half precision a phase would be off by a fraction of a turn.
        with torch.autocast(embedding.device.type, enabled=False):
            features = random_features(self.norm(embedding), self.weight, self.phase)
            return self.output(features), features

    @torch.no_grad()
    def observe(self, features: Tensor) -> None:
        """Add a batch of training images, by their random features [n, m], to the statistics."""
        with torch.autocast(features.device.type, enabled=False):
            batch = features.double().T @ features.double()
            if self.discount is None:
                self.gram.add_(batch)
            else:
                self.gram.lerp_(batch / len(features), 1 - self.discount)

    def reset(self) -> None:
        """Forget the images so far, where the statistics are a sum."""
        if self.discount is None:
            self.gram.zero_()

    def variance(self, features: Tensor) -> Tensor:
        """Return the posterior variance [n] of the logits at random features [n, m]."""
        return posterior_variance(features, self.gram, self.ridge)


def random_features(inputs: Tensor, weight: Tensor, phase: Tensor) -> Tensor:
    """Return sqrt(2 / m) cos(W h + b), [n, m], of inputs h [n, d], W [m, d], b [m]."""
    return math.sqrt(2 / len(weight)) * torch.cos(inputs @ weight.T + phase)


def orthogonal_random_features(features: int, dim: int) -> Tensor:
    """Return W [features, dim]: rows orthogonal within each block of `dim`, as long as those of a Gaussian matrix."""
    blocks = [nn.init.orthogonal_(torch.empty(dim, dim)) for _ in range(math.ceil(features / dim))]
    return torch.cat(blocks)[:features] * torch.randn(features, dim).norm(dim=1, keepdim=True)


@torch.no_grad()
def posterior_variance(features: Tensor, gram: Tensor, ridge: float) -> Tensor:
    """Return s phi^T (G + s I)^-1 phi, [n], of features phi [n, m] and their Gram matrix G = Phi^T Phi [m, m], float64.

    Raises
    ------
    torch.linalg.LinAlgError
        s is lost in the rounding errors of G.
    """
    with torch.autocast(features.device.type, enabled=False):
        precision = gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(precision), features.to(gram).T, upper=False)
        return (ridge * whitened.square().sum(0)).to(features.dtype)


def mean_field_logits(logits: Tensor, variance: Tensor, factor: float) -> Tensor:
    """Return logits [n, c] / sqrt(1 + factor * variance [n])."""
    return logits / (1 + factor * variance).sqrt().unsqueeze(-1)
