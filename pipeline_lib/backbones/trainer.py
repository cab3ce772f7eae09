"""A plain classifier trainer for the small backbones that are trained here.

AdamW with linear warm-up and cosine decay per step, cross-entropy, bfloat16 autocast where it is asked for.
The order of the images and every augmentation are functions of (seed, epoch, sample_id).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from torch import nn

from pipeline_lib.backbones.training_images import ImageBatches
from pipeline_lib.config.features import Augmentation
from pipeline_lib.core.device import choose_device
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.progress import Progress
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.plain_views import AugmentedView

if TYPE_CHECKING:
    from pipeline_lib.backbones.trained import Options


def train_classifier(
    network: nn.Module,
    images: ImageDataset,
    options: Options,
    data_config: Mapping[str, Any],
    on_epoch: Callable[[dict[str, float]], None],
) -> None:
    """Train `network` in place; `on_epoch` gets the loss and accuracy over each epoch's augmented images."""
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    network.to(device, memory_format=torch.channels_last).train()
    optimizer = create_optimizer_v2(network, opt="adamw", lr=options.learning_rate, weight_decay=options.weight_decay)
    view = AugmentedView(_augmentation(options), options.seed, data_config)
    batches = ImageBatches(images, view, options.batch_size)
    mean = torch.tensor(data_config["mean"], device=device).view(1, 3, 1, 1) * 255
    std = torch.tensor(data_config["std"], device=device).view(1, 3, 1, 1) * 255
    steps_per_epoch = math.ceil(len(images) / options.batch_size)
    with Progress(len(images) * options.epochs, "images", f"training {options.architecture}") as progress:
        for epoch in range(options.epochs):
            loss_sum, correct, seen = 0.0, 0, 0
            for step, batch in enumerate(batches.shuffled(options.seed, epoch), start=epoch * steps_per_epoch):
                rate = relative_rate(step / steps_per_epoch, options.warmup_epochs, options.epochs)
                for group in optimizer.param_groups:
                    group["lr"] = options.learning_rate * rate
                pixels, label = batch.pixels.to(device), batch.label.to(device)
                normalised = ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
                with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
                    logits = network(normalised)
                loss = F.cross_entropy(logits.float(), label)
                if not torch.isfinite(loss):
                    raise PipelineError(
                        f"training {options.architecture}: the loss is {loss.item()} in epoch {epoch}; "
                        f"lower learning_rate (it is {options.learning_rate})"
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                loss_sum += loss.item() * len(label)
                correct += int((logits.argmax(dim=1) == label).sum())
                seen += len(label)
                progress.advance(len(label))
            on_epoch({"epoch": epoch, "loss": loss_sum / seen, "accuracy": correct / seen})
    network.cpu()


def relative_rate(epoch: float, warmup_epochs: float, epochs: int) -> float:
    """Return the learning rate at a fractional epoch, relative to its peak: linear warm-up, then a cosine to zero.

    Warm-up, for t < w:   (t + 0.001) / (w + 0.001)
    Cosine, from t = w:   (1 + cos(pi * t / T)) / 2

    with t the epoch, w `warmup_epochs` and T `epochs`.
    """
    if epoch < warmup_epochs:
        return (epoch + 1e-3) / (warmup_epochs + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def _augmentation(options: Options) -> Augmentation:
    return Augmentation(scale=options.scale, horizontal_flip=options.horizontal_flip, color_jitter=options.color_jitter)
