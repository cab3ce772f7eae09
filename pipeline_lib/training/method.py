"""A method of the URL benchmark: the uncertainty is trained with the network, and the best epoch is kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from PIL import Image
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import Tensor

from pipeline_lib.config.method_training import MethodTraining
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.plain_views import View
from pipeline_lib.training.frozen import freeze
from pipeline_lib.training.images import Normalise
from pipeline_lib.training.processes import process_count
from pipeline_lib.training.schedule import Schedule
from pipeline_lib.training.trainer import FEWEST_IMAGES, Record, Task, Trainer

if TYPE_CHECKING:
    from pipeline_lib.methods.base import Method


class TwoCrops:
    """Two draws of an augmentation of each image, uint8 [2, 3, H, W]."""

    extras: tuple[str, ...] = ()

    def __init__(self, view: View) -> None:
        self._view = view

    def __call__(self, image: Image.Image, sample_id: int, epoch: int) -> tuple[Tensor, tuple[float, ...]]:
        """Return draws 2 * epoch and 2 * epoch + 1 of the view."""
        draws = [self._view(image, sample_id, 2 * epoch + crop) for crop in range(2)]
        return torch.stack([pixels for pixels, _ in draws]), draws[0][1]


class MethodTask(Task):
    """A method's model, and the average of its weights where there is one.

    `best` is the state dict of the best epoch so far, in the process that evaluates.

    Raises
    ------
    PipelineError
        A part to be frozen is none of the network's, nothing is left to train, or a batch is too small for the
        processes that share it.
    """

    def __init__(self, model: Method, recipe: MethodTraining, normalise: Normalise) -> None:
        super().__init__()
        if recipe.batch_size < (fewest := FEWEST_IMAGES * process_count()):
            raise PipelineError(
                f"training.batch_size is {recipe.batch_size}, but {process_count()} processes that train together need "
                f"{FEWEST_IMAGES} images each; make it at least {fewest}, or start fewer processes"
            )
        self.model, self._recipe, self._normalise = model.to(normalise.device), recipe, normalise
        self._frozen = freeze(model.network, recipe.frozen)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise PipelineError(
                f"training.frozen: {', '.join(recipe.frozen)} is all that this method could train; learning_rate: 0 "
                "only evaluates"
            )
        if any(parameter.ndim == 4 for parameter in model.parameters()):
            model.to(memory_format=torch.channels_last)
        self.average = ModelEmaV3(model, decay=recipe.ema_decay) if recipe.ema_decay else None
        self.best: dict[str, Tensor] = {}

    @property
    def evaluated(self) -> Method:
        """The model to evaluate and keep: the average of the weights where there is one."""
        return self.model if self.average is None else self.average.module

    def begin_epoch(self) -> None:
        """Let all parts train that are not frozen."""
        self.model.train()
        for module in self._frozen:
            module.eval()
        self.model.begin_epoch()

    def forward(self, pixels: Tensor, label: Tensor) -> Tensor:
        """Return the method's loss; of two crops [n, 2, 3, H, W] it gets all first ones, then all second ones."""
        if pixels.ndim == 5:
            label = label.repeat(pixels.shape[1])
            pixels = pixels.transpose(0, 1).flatten(0, 1)
        images = self._normalise(pixels)
        label = self.model.of_whole_batch(label.to(images.device))
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._recipe.precision == "bfloat16"):
            return self.model.loss(images, label)

    def after_step(self) -> None:
        """Take the step into the average of the weights."""
        if self.average is not None:
            self.average.update(self.model)
            for name in self.model.statistics:
                self.average.module.get_buffer(name).copy_(self.model.get_buffer(name))

    def end_epoch(self, curve: list[Record]) -> None:
        """Keep the weights where the epoch is the best so far."""
        if not self.best or best_epoch(curve, self._recipe.selection) == len(curve) - 1:
            self.best = {name: value.cpu().clone() for name, value in self.evaluated.state_dict().items()}

    def predict(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (embedding [n, d], logits [n, classes], uncertainty [n]) of uint8 pixels, in evaluation mode."""
        prediction = self.evaluated.eval()(self._normalise(pixels))
        return prediction.embedding, prediction.logits, prediction.uncertainty

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return what a state dict holds beside weights and statistics: the best epoch's."""
        return self.best

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Take what `get_extra_state` returned."""
        self.best = state


def method_trainer(task: MethodTask, recipe: MethodTraining, seed: int, images: int, name: str) -> Trainer:
    """Return the trainer of a task on so many images; no bias, norm or parameter that the model names decays."""
    peak = peak_rate(recipe)
    optimizer = create_optimizer_v2(task.model, opt=recipe.optimizer, lr=peak, weight_decay=recipe.weight_decay)
    start = min(recipe.warmup_learning_rate / peak, 1.0) if peak > 0 else 1.0
    steps = math.ceil(images / (recipe.batch_size * recipe.accumulation_steps))
    schedule = Schedule(recipe.epochs, recipe.warmup_epochs, start, steps)
    advice = f"lower learning_rate (it is {recipe.learning_rate})"
    return Trainer(task, optimizer, schedule, seed, name, advice, recipe.accumulation_steps, recipe.clip_norm)


def peak_rate(recipe: MethodTraining) -> float:
    """Return the peak learning rate for the images of one optimiser step.

    With b images per step, learning_rate * sqrt(b / 256) for LAMB and AdamW, learning_rate * b / 256 for SGD.
    """
    images = recipe.batch_size * recipe.accumulation_steps / 256
    return recipe.learning_rate * (images if recipe.optimizer == "sgd" else math.sqrt(images))


def best_epoch(curve: list[Record], selection: str) -> int:
    """Return the trained epoch with the highest value of the metric, the first of equals; the last where none has one.

    Epoch 0, the model before training, is kept only where nothing was trained: it could be the best by far, where
    training starts from pretrained weights, and its uncertainty would be none that the method learnt.
    """
    last = len(curve) - 1
    if selection == "last":
        return last
    values = [
        (value, -epoch) for epoch, record in enumerate(curve) if epoch and (value := record[selection]) is not None
    ]
    return -max(values)[1] if values else last
