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
from PIL import Image
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pipeline_lib.datasets.base import UnreadableImageError
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.views import AugmentedView
from pipeline_lib.device import choose_device
from pipeline_lib.errors import PipelineError
from pipeline_lib.progress import Progress

if TYPE_CHECKING:
    from pipeline_lib.backbones.trained import Options

# Decoded images are kept up to this size: a small world is decoded once, a large one every epoch.
_DECODED_BYTES = 1 << 30


class _TrainingImages(torch.utils.data.Dataset):
    """Item i: uint8 pixels [3, H, W] of the i-th image, augmented for the current epoch, and its label."""

    def __init__(self, images: ImageDataset, view: AugmentedView) -> None:
        self._images, self._view = images, view
        self.epoch = 0
        self._decoded: dict[int, Image.Image] = {}
        self._decoded_bytes = 0
        self._skipped: set[int] = set()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, position: int) -> tuple[Tensor, int] | None:
        image = self._image(position)
        if image is None:
            return None
        pixels, _ = self._view(image, int(self._images.sample_id[position]), self.epoch)
        return pixels, int(self._images.label[position])

    def _image(self, position: int) -> Image.Image | None:
        if position in self._decoded:
            return self._decoded[position]
        try:
            image = self._images.image(position)
        except UnreadableImageError:
            self._skipped.add(position)
            if len(self._skipped) > self._images.skip_unreadable:
                raise
            return None
        size = 3 * image.width * image.height
        if self._decoded_bytes + size <= _DECODED_BYTES:
            self._decoded[position] = image
            self._decoded_bytes += size
        return image


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
    dataset = _TrainingImages(images, AugmentedView(_augmentation(options), data_config))
    mean = torch.tensor(data_config["mean"], device=device).view(1, 3, 1, 1) * 255
    std = torch.tensor(data_config["std"], device=device).view(1, 3, 1, 1) * 255
    steps_per_epoch = math.ceil(len(images) / options.batch_size)
    with Progress(len(images) * options.epochs, "images", f"training {options.architecture}") as progress:
        for epoch in range(options.epochs):
            dataset.epoch = epoch
            loss_sum, correct, seen = 0.0, 0, 0
            for step, (pixels, label) in enumerate(_batches(dataset, options, epoch), start=epoch * steps_per_epoch):
                for group in optimizer.param_groups:
                    group["lr"] = options.learning_rate * _rate(step / steps_per_epoch, options)
                pixels, label = pixels.to(device), label.to(device)
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


def _rate(epoch: float, options: Options) -> float:
    """Return the learning rate at a fractional epoch, relative to its peak."""
    if epoch < options.warmup_epochs:
        return (epoch + 1e-3) / (options.warmup_epochs + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * epoch / options.epochs))


def _augmentation(options: Options) -> dict[str, Any]:
    return {
        "seed": options.seed,
        "scale": options.scale,
        "ratio": (3 / 4, 4 / 3),
        "horizontal_flip": options.horizontal_flip,
        "color_jitter": options.color_jitter,
        "color_jitter_probability": None,
        "interpolation": "random",
    }


def _batches(dataset: _TrainingImages, options: Options, epoch: int) -> DataLoader:
    """Return an epoch's shuffled batches (pixels uint8 [n, 3, H, W], label int64 [n])."""
    return DataLoader(
        dataset,
        batch_size=options.batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed((options.seed << 20) + epoch),
        collate_fn=_collate,
    )


def _collate(items: list[tuple[Tensor, int] | None]) -> tuple[Tensor, Tensor]:
    readable = [item for item in items if item is not None]
    return torch.stack([pixels for pixels, _ in readable]), torch.tensor([label for _, label in readable])
