"""Training a method's model from images, epoch by epoch.

Every step's rate, order of images, augmentation and random draw is a function of (seed, epoch, step), so that training
that was interrupted goes on exactly as it would have.

In a process group each process trains on its part of every batch. Loss and gradient are those of the whole batch (see
`methods.whole_batch`), and so the weights are those of one process up to rounding, but for two things: BatchNorm
normalises within a part, and its statistics are those of process 0; images at the same place of two parts get the same
dropout within the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import torch
from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from pipeline_lib.backbones.training_images import Batch
from pipeline_lib.config.method_training import MethodTraining
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.plain_views import draw_seed
from pipeline_lib.method_training.frozen import freeze
from pipeline_lib.method_training.processes import process_count
from pipeline_lib.methods.base import Method
from pipeline_lib.methods.whole_batch import images_of_each_process

_FEWEST_IMAGES = 2  # in each process: BatchNorm has nothing to average over fewer, and no loss a pair


class _Loss(nn.Module):
    """A model whose forward pass is its training loss, which is what DistributedDataParallel hooks into."""

    def __init__(self, model: Method) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.model.loss(images, labels)


class MethodTrainer:
    """A method's model and its optimiser.

    Parameters
    ----------
    model
        Trained in place.
    recipe
        How to train.
    data_config
        `mean` and `std` of the pixels.
    seed
        Seeds dropout and samples.
    steps_per_epoch
        Optimiser steps of an epoch, for the schedule.
    device
        Where to train.

    Raises `PipelineError` where a part to be frozen is none of the network's, where nothing is left to train, and where
    a batch is too small for the processes that share it.
    """

    def __init__(
        self,
        model: Method,
        recipe: MethodTraining,
        data_config: Mapping[str, Any],
        seed: int,
        steps_per_epoch: int,
        device: torch.device,
    ) -> None:
        if recipe.batch_size < (fewest := _FEWEST_IMAGES * process_count()):
            raise PipelineError(
                f"training.batch_size is {recipe.batch_size}, but {process_count()} processes that train together need "
                f"{_FEWEST_IMAGES} images each; make it at least {fewest}, or start fewer processes"
            )
        self._recipe, self._seed, self._steps_per_epoch, self._device = recipe, seed, steps_per_epoch, device
        self.model = model.to(device)
        self._frozen = freeze(model.network, recipe.frozen)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise PipelineError(
                f"training.frozen: {', '.join(recipe.frozen)} is all that this method could train; learning_rate: 0 "
                "only evaluates"
            )
        if any(parameter.ndim == 4 for parameter in model.parameters()):
            model.to(memory_format=torch.channels_last)
        # timm exempts parameters of no or one dimension, such as biases and norms, and those that it is given.
        groups = param_groups_weight_decay(model, recipe.weight_decay, no_weight_decay_list=model.no_weight_decay())
        self.peak = peak_rate(recipe)
        self._optimizer = create_optimizer_v2(groups, opt=recipe.optimizer, lr=self.peak, weight_decay=0.0)
        self._average = ModelEmaV3(model, decay=recipe.ema_decay) if recipe.ema_decay else None
        self._loss: nn.Module = _Loss(model)
        if distributed.is_initialized():
            # A contrastive loss has no use for the classifier.
            self._loss = DistributedDataParallel(self._loss, find_unused_parameters=True)
        self._mean, self._std = (
            torch.tensor(data_config[name], device=device).view(1, 3, 1, 1) * 255 for name in ("mean", "std")
        )

    @property
    def evaluated(self) -> Method:
        """The model to evaluate and keep: the average of the weights where there is one."""
        return self.model if self._average is None else self._average.module

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return images float32 [n, 3, H, W] of uint8 pixels, on the training device."""
        return (pixels.to(self._device, non_blocking=True) - self._mean) / self._std

    def train_epoch(self, epoch: int, batches: Iterable[Batch], on_images: Callable[[int], None]) -> float:
        """Train on the batches of an epoch (counted from 0) and return the mean training loss.

        Raises `PipelineError` when the loss is not finite, and when no batch had enough images.
        """
        recipe, total, seen = self._recipe, 0.0, 0
        self.model.train()
        for module in self._frozen:
            module.eval()
        self.model.begin_epoch()
        for step, micro_batches in enumerate(self._grouped(batches)):
            rate = relative_rate(epoch + step / self._steps_per_epoch, recipe, self.peak)
            for group in self._optimizer.param_groups:
                group["lr"] = self.peak * rate * group.get("lr_scale", 1.0)
            # Dropout and samples draw from global generators; seeded for each step, they are the same after a resume.
            torch.manual_seed(draw_seed(self._seed, epoch, -1 - step))
            images = sum(count for _, count in micro_batches)
            self._optimizer.zero_grad(set_to_none=True)
            for position, (batch, count) in enumerate(micro_batches):
                pixels, label = _flatten(batch)
                label = self.model.of_whole_batch(label.to(self._device))
                with self._gradients_added_up(is_last=position == len(micro_batches) - 1):
                    with torch.autocast(self._device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                        loss = self._loss(self.normalise(pixels), label)
                    (loss * (count / images)).backward()
                total += float(loss.detach()) * count
            if not math.isfinite(total):
                raise PipelineError(
                    f"training by {type(self.model).__module__.rsplit('.', 1)[-1]}: the loss is not finite in epoch "
                    f"{epoch + 1}, step {step + 1}; lower learning_rate (it is {recipe.learning_rate})"
                )
            if recipe.clip_norm is not None:
                clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
            self._optimizer.step()
            if self._average is not None:
                self._average.update(self.model)
                for name in self.model.statistics:
                    self._average.module.get_buffer(name).copy_(self.model.get_buffer(name))
            seen += images
            on_images(images)
        if seen == 0:
            raise PipelineError(
                f"training saw no image in epoch {epoch + 1}: no batch has {_FEWEST_IMAGES} readable images for "
                f"each process (there are {process_count()}); use more images, or fewer processes"
            )
        return total / seen

    def _grouped(self, batches: Iterable[Batch]) -> Iterator[list[tuple[Batch, int]]]:
        """Yield the batches of each step, each with its number of images in all processes.

        The last group is smaller, and batches of which a process holds too few images are left out.
        """
        counted = ((batch, images_of_each_process(len(batch.label), self._device)) for batch in batches)
        usable = ((batch, sum(counts)) for batch, counts in counted if min(counts) >= _FEWEST_IMAGES)
        while group := list(islice(usable, self._recipe.accumulation_steps)):
            yield group

    def _gradients_added_up(self, is_last: bool) -> AbstractContextManager[None]:
        """Return a context in which gradients are averaged over the processes only for the last batch of a step."""
        return nullcontext() if is_last or not distributed.is_initialized() else self._loss.no_sync()

    def state(self) -> dict[str, Any]:
        """Return everything that training changes, for `load_state`."""
        average = None if self._average is None else self._average.module.state_dict()
        return {"model": self.model.state_dict(), "average": average, "optimizer": self._optimizer.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state` returned."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._average is not None:
            self._average.module.load_state_dict(state["average"])


def peak_rate(recipe: MethodTraining) -> float:
    """Return the peak learning rate for the images of one optimiser step.

    With b images per step, learning_rate * sqrt(b / 256) for LAMB and AdamW, learning_rate * b / 256 for SGD.
    """
    images = recipe.batch_size * recipe.accumulation_steps / 256
    return recipe.learning_rate * (images if recipe.optimizer == "sgd" else math.sqrt(images))


def relative_rate(epoch: float, recipe: MethodTraining, peak: float) -> float:
    """Return the rate at a fractional epoch, relative to its peak: linear warm-up, then a cosine to zero.

    Warm-up, t < w:  r_0 + (1 - r_0) t / w;  then (1 + cos(pi t / T)) / 2, with t the epoch, w `warmup_epochs`,
    T `epochs`, r_0 = `warmup_learning_rate` / peak, at most 1.
    """
    if epoch < recipe.warmup_epochs:
        start = min(recipe.warmup_learning_rate / peak, 1.0) if peak > 0 else 1.0
        return start + (1 - start) * epoch / recipe.warmup_epochs
    return 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs))


def _flatten(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return pixels [n, 3, H, W] and labels [n]; of two crops [n, 2, 3, H, W] first all first ones, then the second."""
    if batch.pixels.ndim == 4:
        return batch.pixels, batch.label
    return batch.pixels.transpose(0, 1).flatten(0, 1), batch.label.repeat(batch.pixels.shape[1])
