"""Classifier and uncertainty head, trained together from a pretrained backbone that is not frozen.

Per batch, with l = L_task(y, c(e(x))) the cross-entropy of each image,

    L = mean(l) + lambda * L_u(u(e(x)), stopgrad(l)),

where L_u is the squared error or the order loss (section 3 of Pretrained Visual Uncertainties). Without more, the
gradients of L_u reach the backbone and compete with those of L_task. With `stop_gradient` the head reads
stopgrad(e(x)): backbone and classifier then learn exactly as if there were no head, bit for bit. For that, nothing may
couple the two: no clipping by a common norm, and a dropout draw that doesn't depend on the head.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from timm.optim import param_groups_weight_decay
from torch import Tensor

from pipeline_lib.backbones.base import Backbone
from pipeline_lib.backbones.spec import BackboneSpec
from pipeline_lib.backbones.trainer import relative_rate
from pipeline_lib.backbones.training_images import Batch
from pipeline_lib.config.joint_training import JointOptions
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.plain_views import draw_seed
from pipeline_lib.heads.losses.order import order_loss
from pipeline_lib.heads.losses.squared_error import squared_error_loss
from pipeline_lib.heads.model import UncertaintyHead


class JointTrainer:
    """A backbone with its classifier, an uncertainty head, and the optimiser of both.

    Parameters
    ----------
    backbone
        Where training starts, in float32. Its weights are trained in place.
    recipe
        How to train.
    stop_gradient
        Whether the head's gradients end before the backbone.
    seed
        Draws the head's initial weights, and seeds dropout.
    steps_per_epoch
        Batches of an epoch, for the schedule.
    """

    def __init__(
        self, backbone: Backbone, recipe: JointOptions, stop_gradient: bool, seed: int, steps_per_epoch: int
    ) -> None:
        self.backbone, self._recipe, self._stop_gradient, self._seed = backbone, recipe, stop_gradient, seed
        self._steps_per_epoch = steps_per_epoch
        self._device = backbone.mean.device
        self.head = UncertaintyHead(backbone.dim, recipe.hidden, seed).to(self._device)
        network = backbone.encoder.network.requires_grad_(True)
        exempt = network.no_weight_decay() if hasattr(network, "no_weight_decay") else ()
        groups = [
            {**group, "peak": peak}
            for module, names, peak in (
                (network, exempt, recipe.learning_rate),
                (self.head, (), recipe.head_learning_rate),
            )
            for group in param_groups_weight_decay(module, recipe.weight_decay, no_weight_decay_list=names)
        ]
        self._optimizer = torch.optim.AdamW(groups, fused=True)
        self._head_loss = _head_loss(recipe)

    def train_epoch(self, epoch: int, batches: Iterable[Batch], on_images: Callable[[int], None]) -> dict[str, float]:
        """Train on the batches of an epoch (counted from 0); returns its mean training losses.

        The keys are `train_task_loss` and `train_head_loss`, means over the images of the epoch.
        Raises `PipelineError` when a loss is not finite.
        """
        sums = torch.zeros(2, device=self._device)
        seen = 0
        self.backbone.encoder.network.train()
        for step, batch in enumerate(batches):
            count = len(batch.label)
            if count < 2:
                continue  # no pair to order, and nothing for BatchNorm to average
            rate = relative_rate(epoch + step / self._steps_per_epoch, self._recipe.warmup_epochs, self._recipe.epochs)
            for group in self._optimizer.param_groups:
                group["lr"] = group["peak"] * rate
            # Dropout draws from the global generator; seeded for each step, it is the same after a resume.
            torch.manual_seed(draw_seed(self._seed, epoch, -1 - step))
            task_loss, head_loss = self._losses(batch)
            self._optimizer.zero_grad(set_to_none=True)
            (task_loss + self._recipe.loss_weight * head_loss).backward()
            self._optimizer.step()
            sums += torch.stack([task_loss.detach(), head_loss.detach()]) * count
            seen += count
            on_images(count)
        task, head = (sums / max(seen, 1)).tolist()
        if not (math.isfinite(task) and math.isfinite(head)):
            raise PipelineError(
                f"joint training of backbone '{BackboneSpec.model_validate(self.backbone.manifest.spec).name}': the task loss is {task} and the "
                f"head's loss {head} in epoch {epoch + 1}; lower learning_rate (it is {self._recipe.learning_rate}), "
                f"head_learning_rate ({self._recipe.head_learning_rate}) or loss_weight ({self._recipe.loss_weight})"
            )
        return {"train_task_loss": task, "train_head_loss": head}

    def predict(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (embedding [n, d], logits [n, classes], uncertainty [n]) of uint8 pixels, in evaluation mode."""
        self.backbone.encoder.network.eval()
        embedding, logits = self.backbone.from_pixels(pixels)
        return embedding, logits, self.head(embedding)

    def state(self) -> dict[str, Any]:
        """Return everything that training changes, for `load_state`."""
        return {
            "network": self.backbone.encoder.network.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state` returned."""
        self.backbone.encoder.network.load_state_dict(state["network"])
        self.head.load_state_dict(state["head"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean task loss and the mean head's loss of a batch."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._recipe.precision == "bfloat16"):
            embedding, logits = self.backbone.from_pixels(batch.pixels)
        embedding = embedding.float()
        if self._recipe.precision == "bfloat16":
            # Once more in float32: small differences between task losses decide how pairs are ranked.
            logits = self.backbone.encoder.classifier(embedding)
        task_loss = F.cross_entropy(logits, batch.label.to(self._device), reduction="none")
        uncertainty = self.head(embedding.detach() if self._stop_gradient else embedding)
        return task_loss.mean(), self._head_loss(uncertainty, task_loss.detach())


def _head_loss(recipe: JointOptions) -> Callable[[Tensor, Tensor], Tensor]:
    """Return L_u: (uncertainty [n], task_loss [n]) -> scalar."""
    if recipe.loss == "squared_error":
        return squared_error_loss
    return functools.partial(_order_loss, margin=recipe.margin)


def _order_loss(uncertainty: Tensor, task_loss: Tensor, margin: float) -> Tensor:
    """Return the order loss; the last image of an odd batch has no partner and is left out."""
    even = len(uncertainty) // 2 * 2
    return order_loss(uncertainty[:even], task_loss[:even], margin)
