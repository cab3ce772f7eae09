"""MC dropout: the network with dropout is a distribution over networks, and predictions are averaged over it.

Gal and Ghahramani, Dropout as a Bayesian Approximation (2016). With dropout masks m_s,

    loss = -mean_i log softmax(f(x_i; m))[y_i],    p(x) = 1/s sum_s softmax(f(x; m_s)).

Dropout follows every activation of a ResNet's residual blocks; in a ViT it sits behind the positions, the attention's
projection and both layers of each MLP. Attention weights are not dropped: fused attention kernels take no masks. In
every network it is also on the representation.

Uncertainty: the entropy of the mean prediction p, or the Jensen-Shannon divergence of the samples,
H(p) - 1/s sum_s H(p_s).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.backbones.networks import TimmNetwork
from pipeline_lib.config.section import Seed
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.methods.base import Method, Prediction
from pipeline_lib.methods.options import Compat, MethodOptions
from pipeline_lib.methods.scores import class_entropy, jensen_shannon_divergence, mean_log_probability


class Options(MethodOptions):
    """Options of MC dropout."""

    kind: Literal["mc_dropout"] = "mc_dropout"
    drop_rate: float = Field(0.08702220252645132, gt=0, lt=1, description="Probability that an activation is dropped.")
    mc_samples: int = Field(10, ge=1, description="Masks per image at evaluation; each costs a forward pass.")
    uncertainty: Literal["class_entropy", "jensen_shannon"] = Field(
        "jensen_shannon", description="Entropy of the mean prediction, or how much the samples disagree; in nats."
    )
    compat: Compat = None
    seed: Seed = Field(0, description="Draws the masks of the evaluation, the same ones for all images.")


class Model(Method):
    """A classifier whose dropout stays on at evaluation.

    Raises
    ------
    PipelineError
        Samples without dropout are asked how much they disagree.
    """

    def __init__(self, options: Options, network: TimmNetwork, num_classes: int) -> None:
        super().__init__(network, num_classes)
        self.mc_samples, self.score, self.seed = options.mc_samples, options.uncertainty, options.seed
        insert_dropout(network, options.drop_rate)
        # The reference code turns a ViT's dropout off at evaluation.
        self.drops_at_evaluation = options.compat is None or isinstance(network, ResNet)
        if not self.drops_at_evaluation and options.uncertainty == "jensen_shannon":
            raise PipelineError(
                "method mc_dropout with compat: reference has no dropout at evaluation on this architecture, so that "
                "uncertainty: jensen_shannon would be 0 for all images; set uncertainty: class_entropy"
            )
        self.dropout = SampledDropout(options.drop_rate)

    def embed(self, images: Tensor) -> Tensor:
        """Return the representations float32 [n, d] of normalised images [n, 3, H, W], with dropout on them."""
        return self.dropout(super().embed(images))

    def forward(self, images: Tensor) -> Prediction:
        """Return log mean probabilities, uncertainty and mean embedding of normalised images [n, 3, H, W].

        In training mode of one new mask for each image, so that the samples cannot disagree. In evaluation mode of
        `mc_samples` masks that all images share: a prediction depends on neither the call nor the rest of the batch.
        """
        draws_masks = not self.training and self.drops_at_evaluation
        embedding = self._embed_with_masks(images) if draws_masks else self.embed(images).unsqueeze(0)
        logits = self.classifier(embedding).float()
        mean = mean_log_probability(logits)
        uncertainty = class_entropy(mean) if self.score == "class_entropy" else jensen_shannon_divergence(logits)
        return Prediction(mean, uncertainty, embedding.mean(0))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of normalised images [n, 3, H, W] with labels int64 [n], in nats."""
        return functional.nll_loss(self(images).logits, labels)

    def _embed_with_masks(self, images: Tensor) -> Tensor:
        """Return embeddings [mc_samples, n, d]."""
        generator = torch.Generator(images.device).manual_seed(self.seed)
        layers = [module for module in self.modules() if isinstance(module, SampledDropout)]
        try:
            for layer in layers:
                layer.generator = generator
            return torch.stack([self.embed(images) for _ in range(self.mc_samples)])
        finally:
            for layer in layers:
                layer.generator = None


class SampledDropout(nn.Module):
    """Dropout that draws one mask for the whole batch when it is evaluated.

    In training mode it is nn.Dropout. In evaluation mode it draws a mask from `generator`, or lets everything pass
    where there is none. A generator's numbers are its device's own: CPU and GPU draw different masks.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.generator: torch.Generator | None = None

    def forward(self, activation: Tensor) -> Tensor:
        """Drop activations [n, ...] and scale what is left by 1 / (1 - rate)."""
        if self.training:
            return functional.dropout(activation, self.rate)
        if self.generator is None:
            return activation
        drawn = torch.rand(1, *activation.shape[1:], generator=self.generator, device=activation.device)
        return activation * (drawn >= self.rate).to(activation.dtype).div_(1 - self.rate)


def insert_dropout(network: TimmNetwork, rate: float) -> None:
    """Put `SampledDropout` into a network, as the module's description says; names of parameters do not change."""
    for name, module in list(network.named_modules()):
        if isinstance(module, BasicBlock | Bottleneck):
            for activation in ("act1", "act2", "act3"):
                if hasattr(module, activation):
                    setattr(module, activation, nn.Sequential(getattr(module, activation), SampledDropout(rate)))
        # The dropout on the representation, `head_drop`, is the model's own here.
        elif isinstance(module, nn.Dropout) and not name.endswith(("attn_drop", "head_drop")):
            network.set_submodule(name, SampledDropout(rate))
