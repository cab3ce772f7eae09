"""What every method of the URL benchmark is: a network with one more output, and the loss that trains both.

A method is a module here, named after its kind, that defines

- `Options`, its config section, a subclass of `MethodOptions` whose defaults are the method's own; the config runs
  this class alone and not the rest of the file, so what it names comes from modules without torch;
- `Model`, a subclass of `Method`: what it adds to a timm network, its loss, its uncertainty.

Every model has the same face: `logits, uncertainty, embedding = model(images)`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from typing import ClassVar, NamedTuple, cast

from torch import Tensor, nn

from pipeline_lib.backbones.networks import TimmNetwork, linear_classifier
from pipeline_lib.training.processes import gathered


class Prediction(NamedTuple):
    """What a model says of n images: logits float32 [n, classes], uncertainty float32 [n], embedding float32 [n, d]."""

    logits: Tensor
    uncertainty: Tensor
    embedding: Tensor


class Method(nn.Module):
    """A timm network, trained by a method.

    Parameters
    ----------
    network
        A timm model with a linear classifier; `dim` is d, the width of what enters it. Subclasses add what else they
        learn as submodules and parameters, before training starts, so that the optimiser finds every one of them.
    num_classes
        Classes of the training set.

    `two_crops`: whether a batch holds two augmentations of each image: `loss` then gets 2n images, the first crops of
    all n followed by the second crops of the same, and the labels of all 2n.

    `statistics`: buffers, such as sums over an epoch, that a moving average of the weights takes over as they are.

    Random draws (dropout, samples) come from torch's global generators, which the trainer seeds for each step.

    Raises
    ------
    PipelineError
        The classifier is not one linear layer.
    """

    two_crops: ClassVar[bool] = False
    statistics: ClassVar[tuple[str, ...]] = ()

    def __init__(self, network: TimmNetwork, num_classes: int) -> None:
        super().__init__()
        self.network, self.num_classes = network, num_classes
        linear_classifier(network, "train another architecture")
        # What is pooled is wider than `num_features` where a layer follows, as in MobileNets.
        self.dim: int = network.head_hidden_size

    @property
    def classifier(self) -> nn.Linear:
        """The network's own classifier, unless a method has put something else in its place."""
        return cast(nn.Linear, self.network.get_classifier())

    def embed(self, images: Tensor) -> Tensor:
        """Return the representations float32 [n, d] of normalised images [n, 3, H, W], also of a bfloat16 network.

        In training mode those of the whole batch, also where several processes hold a part of its images each.
        """
        embedding = self.network.forward_head(self.network.forward_features(images), pre_logits=True).float()
        return self.of_whole_batch(embedding) if self.training else embedding

    def of_whole_batch(self, values: Tensor) -> Tensor:
        """Return the values [N, ...] of all images of a batch, given those [n, ...] of this process's images."""
        return gathered(values, crops=2 if self.two_crops else 1)

    def begin_epoch(self) -> None:
        """Prepare for an epoch of training; methods that gather statistics over an epoch start them anew."""

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that do not decay, besides biases and norms: those that timm's network names.

        Methods add those of their loss whose zero means nothing, such as concentrations.
        """
        exempt: Collection[str] = getattr(self.network, "no_weight_decay", set)()
        return {f"network.{name}" for name in exempt}

    @abstractmethod
    def forward(self, images: Tensor) -> Prediction:
        """Return logits, uncertainty and embedding of normalised images [n, 3, H, W]."""

    @abstractmethod
    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean training loss, a scalar, of normalised images [n, 3, H, W] with labels int64 [n].

        Where several processes hold a part of the images each, labels and loss are those of the whole batch.
        """
