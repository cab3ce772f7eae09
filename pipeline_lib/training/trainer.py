"""Training from images, epoch after epoch: for every network that is trained here, by whichever loss.

Every step's rate, order of images, augmentation and random draw is a function of (seed, epoch, step), so that training
that was interrupted goes on exactly as it would have.

In a process group each process trains on its part of every batch. Loss and gradient are those of the whole batch (see
`processes`), and so the weights are those of one process up to rounding, but for two things: BatchNorm normalises
within a part, and its statistics are those of process 0; images at the same position of two parts get the same dropout
within the network.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.progress import Progress
from pipeline_lib.datasets.plain_views import draw_seed
from pipeline_lib.training.images import Batch, ImageBatches
from pipeline_lib.training.processes import images_of_each_process, process_count, process_number, union, wait_for_all
from pipeline_lib.training.schedule import Schedule
from pipeline_lib.training.state import SavedState

FEWEST_IMAGES = 2  # in each process: BatchNorm has nothing to average over fewer, and no loss a pair

# A line of a curve: `epoch`, and values by name; None where one is undefined.
Record = dict[str, float | None]
# Maps uint8 pixels [n, 3, H, W] to (embedding [n, d], logits [n, classes], uncertainty [n]).
Predict = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
# Says how good predictions are on held-out images, in values by name.
Validate = Callable[[Predict], Record]


class Task(nn.Module):
    """A network and the loss that it is trained on. Its state dict is what training changes, but for the optimiser.

    recorded: the names of the values of an epoch's `record`.
    """

    recorded: ClassVar[tuple[str, ...]] = ("loss",)

    def forward(self, pixels: Tensor, label: Tensor) -> Tensor:
        """Return the mean loss, a scalar, of uint8 pixels [n, ..., 3, H, W] with labels int64 [n], from any device."""
        raise NotImplementedError

    def begin_epoch(self) -> None:
        """Prepare for an epoch of training."""
        self.train()

    def after_step(self) -> None:
        """Follow a step of the optimiser."""

    def record(self, loss: float, images: int) -> Record:
        """Return what is recorded of an epoch, given its mean loss and how many images it had."""
        return {"loss": loss}

    def end_epoch(self, curve: list[Record]) -> None:
        """Follow an epoch, the last of the curve, in the process that evaluates."""

    def predict(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (embedding [n, d], logits [n, classes], uncertainty [n]) of uint8 pixels, in evaluation mode."""
        raise NotImplementedError


class Trainer:
    """A task with its optimiser.

    Parameters
    ----------
    task
        Trained in place.
    optimizer
        Of the task's parameters; the rates of its groups are their peaks.
    schedule
        The rates of all steps, relative to these.
    seed
        Decides the order of the images, and seeds what is random within the network.
    name
        What is trained, for messages.
    advice
        What to do when the loss is not finite.
    accumulation_steps
        Batches per optimiser step.
    clip_norm
        Largest norm of the gradient; None: it is not clipped.
    """

    def __init__(
        self,
        task: Task,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        seed: int,
        name: str,
        advice: str,
        accumulation_steps: int = 1,
        clip_norm: float | None = None,
    ) -> None:
        self.task, self.seed, self.name = task, seed, name
        self._optimizer, self._schedule, self._advice = optimizer, schedule, advice
        self._accumulation_steps, self._clip_norm = accumulation_steps, clip_norm
        self._peaks = [group["lr"] for group in optimizer.param_groups]
        self._device = optimizer.param_groups[0]["params"][0].device
        # A contrastive loss has no use for the classifier.
        together = distributed.is_initialized()
        self._loss = DistributedDataParallel(task, find_unused_parameters=True) if together else task

    def train_epoch(self, epoch: int, batches: Iterable[Batch], on_images: Callable[[int], None]) -> Record:
        """Train on the batches of an epoch (counted from 0) and return the task's record of it.

        Raises
        ------
        PipelineError
            The loss is not finite, or no batch had enough images.
        """
        total, seen = 0.0, 0
        self.task.begin_epoch()
        for step, accumulated in enumerate(self._steps(batches)):
            rate = self._schedule.rate(epoch, step)
            for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
                group["lr"] = peak * rate
            # Dropout and samples draw from global generators; seeded for each step, they are the same after a resume.
            torch.manual_seed(draw_seed(self.seed, epoch, -1 - step))
            images = sum(count for _, count in accumulated)
            self._optimizer.zero_grad(set_to_none=True)
            for position, (batch, count) in enumerate(accumulated):
                with self._gradients_added_up(is_last=position == len(accumulated) - 1):
                    loss = self._loss(batch.pixels, batch.label)
                    (loss * (count / images)).backward()
                total += float(loss.detach()) * count
            if not math.isfinite(total):
                raise PipelineError(
                    f"{self.name}: the loss is not finite in epoch {epoch + 1}, step {step + 1}; {self._advice}"
                )
            if self._clip_norm is not None:
                clip_grad_norm_(self.task.parameters(), self._clip_norm)
            self._optimizer.step()
            self.task.after_step()
            seen += images
            on_images(images)
        if seen == 0:
            raise PipelineError(
                f"{self.name}: saw no image in epoch {epoch + 1}: no batch has {FEWEST_IMAGES} readable images for "
                f"each process (there are {process_count()}); use more images, or fewer processes"
            )
        return self.task.record(total / seen, seen)

    def _steps(self, batches: Iterable[Batch]) -> Iterator[list[tuple[Batch, int]]]:
        """Yield the batches of each step, each with its number of images in all processes.

        The last step has fewer batches, and batches of which a process holds too few images are left out.
        """
        counted = ((batch, images_of_each_process(len(batch.label), self._device)) for batch in batches)
        usable = ((batch, sum(counts)) for batch, counts in counted if min(counts) >= FEWEST_IMAGES)
        while step := list(islice(usable, self._accumulation_steps)):
            yield step

    def _gradients_added_up(self, is_last: bool) -> AbstractContextManager[None]:
        """Return a context in which gradients are averaged over the processes only for the last batch of a step."""
        return (
            self._loss.no_sync() if isinstance(self._loss, DistributedDataParallel) and not is_last else nullcontext()
        )

    def state(self) -> dict[str, Any]:
        """Return everything that training changes, for `load_state`."""
        return {"task": self.task.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state` returned."""
        self.task.load_state_dict(state["task"])
        self._optimizer.load_state_dict(state["optimizer"])


def train(
    trainer: Trainer,
    batches: ImageBatches,
    epochs: int,
    saved: SavedState,
    validate: Validate | None = None,
    on_record: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Train and return the curve, a record per epoch; with a validation also one before the first, as epoch 0.

    Parameters
    ----------
    trainer
        What is trained, in place.
    batches
        The training images; in a process group this process's part of each batch.
    epochs
        How often they are passed.
    saved
        Where a training of before may have left its state, and where this one leaves its own; to be removed when its
        result is written.
    validate
        Adds to the record of each epoch, in the first process alone.
    on_record
        Told each record, those of before a kill as well.

    Raises
    ------
    PipelineError
        As `Trainer.train_epoch`, and for more unreadable images than the dataset allows.
    """
    task, images, is_first = trainer.task, len(batches.images), process_number() == 0
    curve: list[Record] = []
    state = saved.read()
    if state is not None:
        curve, batches.skipped = state["curve"], state["skipped"]
        trainer.load_state(state["trainer"])
    wait_for_all()  # before the first process writes another state
    for record in curve:
        on_record(record)
    next_epoch = len(curve) + (validate is None)
    stream = sys.stderr if is_first else io.StringIO()
    with Progress(images * epochs, "images", trainer.name, images * max(next_epoch - 1, 0), stream) as progress:
        for epoch in range(next_epoch, epochs + 1):
            record = {"epoch": epoch, **dict.fromkeys(task.recorded)}
            if epoch > 0:
                shuffled = batches.shuffled(trainer.seed, epoch - 1)
                record |= trainer.train_epoch(epoch - 1, shuffled, progress.advance)
                batches.skip(union(batches.skipped))
            if is_first and validate is not None:
                record |= validate(task.predict)
            curve.append(record)
            on_record(record)
            if is_first:
                task.end_epoch(curve)
                if epoch < epochs:
                    saved.write({"trainer": trainer.state(), "curve": curve, "skipped": dict(batches.skipped)})
    return curve
