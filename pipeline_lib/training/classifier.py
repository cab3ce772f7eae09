"""A plain classifier, for the small backbones that are trained here: AdamW and cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from pipeline_lib.config.features import Augmentation
from pipeline_lib.config.training_from_images import ClassifierTraining
from pipeline_lib.core.device import choose_device
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.plain_views import AugmentedView
from pipeline_lib.training.images import ImageBatches, Normalise
from pipeline_lib.training.schedule import Schedule, start_of_warmup
from pipeline_lib.training.state import SavedState
from pipeline_lib.training.trainer import Record, Task, Trainer, train


class ClassifierTask(Task):
    """A network whose output are logits; records loss and accuracy over each epoch's augmented images."""

    recorded = ("loss", "accuracy")

    def __init__(self, network: nn.Module, normalise: Normalise, precision: str) -> None:
        super().__init__()
        self.network, self._normalise, self._precision = network, normalise, precision
        self._correct = 0

    def begin_epoch(self) -> None:
        """Start counting anew."""
        super().begin_epoch()
        self._correct = 0

    def forward(self, pixels: Tensor, label: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats."""
        images = self._normalise(pixels).contiguous(memory_format=torch.channels_last)
        label = label.to(images.device)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._precision == "bfloat16"):
            logits = self.network(images)
        self._correct += int((logits.argmax(dim=1) == label).sum())
        return F.cross_entropy(logits.float(), label)

    def record(self, loss: float, images: int) -> Record:
        """Return the mean loss and the share of images whose most probable class is their label."""
        return {"loss": loss, "accuracy": self._correct / images}


def train_classifier(
    network: nn.Module,
    images: ImageDataset,
    options: ClassifierTraining,
    data_config: Mapping[str, Any],
    saved: SavedState,
    name: str,
    workers: int = 0,
) -> list[Record]:
    """Train a network in place, on the device of the options; returns its curve, whose epochs are counted from 0."""
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    network.to(device).to(memory_format=torch.channels_last)
    task = ClassifierTask(network, Normalise(data_config, device), options.precision)
    optimizer = create_optimizer_v2(network, opt="adamw", lr=options.learning_rate, weight_decay=options.weight_decay)
    start, steps = start_of_warmup(options.warmup_epochs), math.ceil(len(images) / options.batch_size)
    schedule = Schedule(options.epochs, options.warmup_epochs, start, steps)
    advice = f"lower learning_rate (it is {options.learning_rate})"
    trainer = Trainer(task, optimizer, schedule, options.seed, name, advice)
    augmentation = Augmentation(
        scale=options.scale, horizontal_flip=options.horizontal_flip, color_jitter=options.color_jitter
    )
    view = AugmentedView(augmentation, options.seed, data_config)
    curve = train(trainer, ImageBatches(images, view, options.batch_size, workers), options.epochs, saved)
    network.cpu()
    return [record | {"epoch": epoch} for epoch, record in enumerate(curve)]
