"""Small worlds of cached features for the tests of the heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.config.training import Training
from pipeline_lib.core.jobs import Job
from pipeline_lib.heads.checkpoint import TrainedHead, write_head
from pipeline_lib.heads.spec import HeadSpec
from pipeline_lib.heads.train import train_heads


class CachedRows:
    """Features in memory, cut into blocks of any sizes as a cache on disk would be; notes what is read."""

    def __init__(
        self,
        embedding: np.ndarray,
        task_loss: np.ndarray | None = None,
        block_sizes: Sequence[int] = (),
        label: np.ndarray | None = None,
    ) -> None:
        """embedding: [epochs, rows, dim]; task_loss: [epochs, rows]; label: [rows]."""
        self.epochs, self.rows, self.dim = embedding.shape
        arrays = {"embedding": embedding, "task_loss": task_loss}
        arrays["label"] = None if label is None else label[None].repeat(self.epochs, axis=0)
        borders = np.cumsum(block_sizes)
        self._blocks = {name: np.split(a, borders, axis=1) for name, a in arrays.items() if a is not None}
        self.reads: list[tuple[str, int, int, int]] = []

    def read(self, array: str, epoch: int, start: int, stop: int) -> np.ndarray:
        self.reads.append((array, epoch, start, stop))
        parts, first = [], 0
        for block in self._blocks[array]:
            last = first + block.shape[1]
            if max(start, first) < min(stop, last):
                parts.append(block[epoch, max(start, first) - first : min(stop, last) - first])
            first = last
        return np.concatenate(parts)


def numbered_rows(rows: int, epochs: int, block_sizes: Sequence[int] = ()) -> CachedRows:
    """Rows that tell which they are: embedding = (epoch, row), task loss = the row's number in the whole cache."""
    epoch, row = np.meshgrid(np.arange(epochs), np.arange(rows), indexing="ij")
    embedding = np.stack([epoch, row], axis=-1).astype(np.float32)
    return CachedRows(embedding, (epoch * rows + row).astype(np.float32), block_sizes)


def learnable_rows(rows: int, epochs: int, dim: int = 8, seed: int = 0) -> CachedRows:
    """Features whose task loss is a smooth function of the embedding plus noise."""
    random = np.random.default_rng(seed)
    embedding = random.normal(size=(epochs, rows, dim)).astype(np.float16)
    signal = embedding[..., 0].astype(np.float32) * 2 + np.abs(embedding[..., 1]).astype(np.float32)
    noise = random.normal(scale=0.3, size=signal.shape)
    return CachedRows(embedding, np.logaddexp(0, signal + noise).astype(np.float32))


def small_training(**changes: Any) -> Training:
    """A recipe for tests: small heads and batches, no warm-up."""
    recipe = {
        "hidden": (16, 16),
        "batch_size": 64,
        "episode_samples": 512,
        "warmup_episodes": 0,
        "shuffle_rows": 50,
        "shuffle_buffer": 256,
        "device": "cpu",
    }
    return Training.model_validate(recipe | changes)


def head_spec(seed: int = 1, training: Training | None = None, **changes: Any) -> HeadSpec:
    """What to train."""
    names = {"backbone": "mine", "variant": "default", "dataset": "latin", "split": "train", "view": "train"}
    return HeadSpec.model_validate({**names, "seed": seed, "training": training or small_training(), **changes})


def trained(rows: CachedRows, training: Training, seeds: Sequence[int], **more: Any) -> list[TrainedHead]:
    """Train one head per seed by one recipe."""
    return train_heads(rows, [head_spec(seed, training) for seed in seeds], **more)


def stored(directory: Path, head: TrainedHead, training: Training | None = None, **changes: Any) -> Path:
    """Write a head as if it had been trained; changes: of `head_spec`."""
    write_head(Job("head", head_spec(head.seed, training, **changes), {}, directory), head)
    return directory
