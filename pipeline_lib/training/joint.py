"""Classifier and uncertainty head, trained together from a pretrained backbone that is not frozen.

Per batch, with l = L_task(y, c(e(x))) the cross-entropy of each image,

    L = mean(l) + lambda * L_u(u(e(x)), stopgrad(l)),

where L_u is a loss of heads, such as the squared error (section 3 of Pretrained Visual Uncertainties). Without more,
the gradients of L_u reach the backbone and compete with those of L_task. With `stop_gradient` the head reads
stopgrad(e(x)): backbone and classifier then learn exactly as if there were no head, bit for bit. For that, nothing may
couple the two: no clipping by a common norm, and a dropout draw that doesn't depend on the head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import torch
import torch.nn.functional as F
import xxhash
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from pipeline_lib.backbones.base import Backbone
from pipeline_lib.config.joint_training import JointOptions
from pipeline_lib.training.schedule import Schedule, start_of_warmup
from pipeline_lib.training.trainer import Record, Task, Trainer

# (uncertainty [n], task_loss [n]) -> mean loss, a scalar, and its gradient by the uncertainty [n].
HeadLoss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class JointTask(Task):
    """A backbone with its classifier, and an uncertainty head.

    Parameters
    ----------
    backbone
        Where training starts, in float32.
    head
        Maps embeddings [n, d] to uncertainties [n].
    head_loss
        L_u.
    recipe
        How to train.
    stop_gradient
        Whether the head's gradients end before the backbone.
    """

    recorded = ("train_task_loss", "train_head_loss")

    def __init__(
        self, backbone: Backbone, head: nn.Module, head_loss: HeadLoss, recipe: JointOptions, stop_gradient: bool
    ) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head.to(backbone.mean.device)
        self.network = backbone.encoder.network.requires_grad_(True)
        self._head_loss, self._recipe, self._stop_gradient = head_loss, recipe, stop_gradient
        self._sums = torch.zeros(2)

    def begin_epoch(self) -> None:
        """Start the sums of both losses anew; a backbone by itself would stay in evaluation mode."""
        self.network.train()
        self._sums = torch.zeros(2, device=self.backbone.mean.device)

    def forward(self, pixels: Tensor, label: Tensor) -> Tensor:
        """Return mean(l) + lambda * L_u of uint8 pixels [n, 3, H, W]."""
        device, in_bfloat16 = self.backbone.mean.device, self._recipe.precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16):
            embedding, logits = self.backbone.from_pixels(pixels)
        embedding = embedding.float()
        if in_bfloat16:
            # Once more in float32: small differences between task losses decide how pairs are ranked.
            logits = self.backbone.encoder.classifier(embedding)
        task_losses = F.cross_entropy(logits, label.to(device), reduction="none")
        uncertainty = self.head(embedding.detach() if self._stop_gradient else embedding)
        task_loss, head_loss = task_losses.mean(), self._head_loss(uncertainty, task_losses.detach())[0]
        self._sums += torch.stack([task_loss.detach(), head_loss.detach()]) * len(label)
        return task_loss + self._recipe.loss_weight * head_loss

    def record(self, loss: float, images: int) -> Record:
        """Return the means of the task loss and of the head's loss."""
        return dict(zip(self.recorded, (self._sums / images).tolist(), strict=True))

    def predict(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (embedding [n, d], logits [n, classes], uncertainty [n]) of uint8 pixels, in evaluation mode."""
        self.network.eval()
        embedding, logits = self.backbone.from_pixels(pixels)
        return embedding, logits, self.head(embedding)

    def weights_digest(self) -> str:
        """Return a checksum of all weights of backbone and classifier: equal training gives equal checksums."""
        digest = xxhash.xxh3_128()
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def joint_trainer(task: JointTask, recipe: JointOptions, seed: int, images: int, name: str) -> Trainer:
    """Return the trainer of a task on so many images: AdamW, with a peak rate of its own for the head."""
    network = task.network
    exempt: Collection[str] = getattr(network, "no_weight_decay", tuple)()
    groups = [
        {**group, "lr": peak}
        for module, names, peak in (
            (network, exempt, recipe.learning_rate),
            (task.head, (), recipe.head_learning_rate),
        )
        for group in param_groups_weight_decay(module, recipe.weight_decay, no_weight_decay_list=names)
    ]
    steps = math.ceil(images / recipe.batch_size)
    schedule = Schedule(recipe.epochs, recipe.warmup_epochs, start_of_warmup(recipe.warmup_epochs), steps)
    advice = (
        f"lower learning_rate (it is {recipe.learning_rate}), head_learning_rate ({recipe.head_learning_rate}) or "
        f"loss_weight ({recipe.loss_weight})"
    )
    return Trainer(task, torch.optim.AdamW(groups, fused=True), schedule, seed, name, advice)
