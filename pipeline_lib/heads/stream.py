"""Shuffled training batches from a cache that doesn't fit in memory.

The rows of an epoch are cut into virtual segments of `shuffle_rows` consecutive rows, whatever blocks the cache
is stored in. Segments come in a random order that depends on the epoch alone, so that all heads of a stack
share one pass over the cache. They fill a buffer, in which each head then draws its batches in a random order
of its own, which depends on its seed alone: a head sees the same batches alone or in any stack.

A buffer holds a whole number of batches. What doesn't fit begins the next one, across epochs too, so that each row of
each epoch is used exactly once; only the last incomplete batch of the whole training is dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.features.rows import FeatureRows, read_finite
from pipeline_lib.heads.schedule import usable_rows

# Keep the random numbers of segments and of heads apart.
_SEGMENT_STREAM, _HEAD_STREAM = 1, 2


@dataclass(frozen=True)
class ShuffledBuffer:
    """A whole number of batches in memory."""

    segments: list[Tensor]  # of the embeddings, in the type that they were read in: [n_i, dim] each, n rows together
    task_loss: np.ndarray  # [n] float32
    orders: np.ndarray  # [S, n] int64: for each head, the rows of the buffer in the order of its batches


def shuffled_buffers(
    rows: FeatureRows,
    epochs: int,
    batch_size: int,
    shuffle_rows: int,
    shuffle_buffer: int,
    seeds: Sequence[int],
    pinned: bool = False,
) -> Generator[ShuffledBuffer, None, None]:
    """Yield buffers of shuffled rows; a background thread fills the next while one is used.

    A buffer has `shuffle_buffer` rows, rounded down to whole batches (at least one). Who uses a buffer copies its
    segments and clears the list, so that the rows of no more than two buffers are in memory.
    Training epoch e reads cached epoch `e % rows.epochs`. Close the iterator to stop the thread early.

    pinned: the thread puts embeddings where a GPU can fetch them while it computes. Torch uses such memory again once
    what it was asked to fetch has arrived.

    Raises `PipelineError` when there are fewer rows than a batch, `NotFiniteError` for a value that is not finite;
    errors of `rows.read` come through.
    """
    usable = usable_rows(rows.rows, epochs, batch_size)
    capacity = min(max(1, shuffle_buffer // batch_size) * batch_size, usable)
    segments = _segments(rows.rows, epochs, shuffle_rows)
    stopping = threading.Event()
    waiting: list[tuple[int, int, int]] = []  # the rest of a segment that the last buffer had no room for

    def fill(number: int, count: int) -> ShuffledBuffer:
        embeddings: list[Tensor] = []
        task_losses: list[np.ndarray] = []
        filled = 0
        while filled < count and not stopping.is_set():
            epoch, start, stop = waiting.pop() if waiting else next(segments)
            taken = min(stop - start, count - filled)
            if start + taken < stop:
                waiting.append((epoch, start + taken, stop))
            embedding = torch.from_numpy(read_finite(rows, "embedding", epoch % rows.epochs, start, start + taken))
            embeddings.append(embedding.pin_memory() if pinned else embedding)
            task_losses.append(read_finite(rows, "task_loss", epoch % rows.epochs, start, start + taken))
            filled += taken
        orders = np.stack([np.random.default_rng([_HEAD_STREAM, seed, number]).permutation(count) for seed in seeds])
        return ShuffledBuffer(embeddings, np.concatenate(task_losses), orders)

    counts = [min(capacity, usable - start) for start in range(0, usable, capacity)]
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="feature-reader") as reader:
        try:
            upcoming = reader.submit(fill, 0, counts[0])
            for number in range(1, len(counts) + 1):
                buffer = upcoming.result()
                if number < len(counts):
                    upcoming = reader.submit(fill, number, counts[number])
                yield buffer
        finally:
            stopping.set()


def _segments(rows: int, epochs: int, shuffle_rows: int) -> Iterator[tuple[int, int, int]]:
    """Yield (epoch, start, stop) of every segment of every epoch, shuffled within the epoch."""
    starts = np.arange(0, rows, shuffle_rows)
    for epoch in range(epochs):
        for start in np.random.default_rng([_SEGMENT_STREAM, epoch]).permutation(starts).tolist():
            yield epoch, start, min(start + shuffle_rows, rows)
