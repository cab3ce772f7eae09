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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline_lib.core.errors import NotFiniteError, PipelineError

# Keep the random numbers of segments and of heads apart.
_SEGMENT_STREAM, _HEAD_STREAM = 1, 2


class FeatureRows(Protocol):
    """The cached features that heads learn from."""

    rows: int  # images per epoch
    epochs: int  # cached epochs
    dim: int  # width of an embedding

    def read(self, array: str, epoch: int, start: int, stop: int) -> np.ndarray:
        """Return rows [start, stop) of one epoch, in sample order; may be called from another thread.

        array: `embedding` (float16 or float32, [n, dim]) or `task_loss` (float32, [n]).
        """
        ...


@dataclass(frozen=True)
class ShuffledBuffer:
    """A whole number of batches in memory."""

    segments: list[np.ndarray]  # of the embeddings, as they were read: [n_i, dim] each, n rows together
    task_loss: np.ndarray  # [n] float32
    orders: np.ndarray  # [S, n] int64: for each head, the rows of the buffer in the order of its batches


def usable_rows(rows: int, epochs: int, batch_size: int) -> int:
    """Return how many rows fill whole batches in `epochs` passes over `rows` rows.

    Raises `PipelineError` when there are fewer rows than one batch.
    """
    usable = rows * epochs // batch_size * batch_size
    if not usable:
        raise PipelineError(
            f"training.batch_size is {batch_size}, but {epochs} epochs of {rows} images are {rows * epochs}; "
            f"lower training.batch_size or add images or epochs"
        )
    return usable


def shuffled_buffers(
    rows: FeatureRows, epochs: int, batch_size: int, shuffle_rows: int, shuffle_buffer: int, seeds: Sequence[int]
) -> Iterator[ShuffledBuffer]:
    """Yield buffers of shuffled rows; a background thread fills the next while one is used.

    A buffer has `shuffle_buffer` rows, rounded down to whole batches (at least one). Who uses a buffer copies its
    segments and clears the list, so that the rows of no more than two buffers are in memory.
    Training epoch e reads cached epoch `e % rows.epochs`. Close the iterator to stop the thread early.

    Raises `PipelineError` when there are fewer rows than a batch, `NotFiniteError` for a value that is not finite;
    errors of `rows.read` come through.
    """
    usable = usable_rows(rows.rows, epochs, batch_size)
    capacity = min(max(1, shuffle_buffer // batch_size) * batch_size, usable)
    segments = _segments(rows.rows, epochs, shuffle_rows)
    stopping = threading.Event()
    waiting: list[tuple[int, int, int]] = []  # the rest of a segment that the last buffer had no room for

    def fill(number: int, count: int) -> ShuffledBuffer:
        embeddings: list[np.ndarray] = []
        task_losses: list[np.ndarray] = []
        filled = 0
        while filled < count and not stopping.is_set():
            epoch, start, stop = waiting.pop() if waiting else next(segments)
            taken = min(stop - start, count - filled)
            if start + taken < stop:
                waiting.append((epoch, start + taken, stop))
            embeddings.append(_read_finite(rows, "embedding", epoch % rows.epochs, start, start + taken))
            task_losses.append(_read_finite(rows, "task_loss", epoch % rows.epochs, start, start + taken))
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


def _read_finite(rows: FeatureRows, array: str, epoch: int, start: int, stop: int) -> np.ndarray:
    values = rows.read(array, epoch, start, stop)
    if _has_non_finite(values):
        faulty = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        row = start + int(np.flatnonzero(faulty)[0])
        raise NotFiniteError(
            f"{array} of epoch {epoch}, row {row} is NaN or infinite; look at that image and the backbone's precision, "
            f"then extract the features again",
            row,
        )
    return values


def _has_non_finite(values: np.ndarray) -> bool:
    """Return whether any value is NaN or infinite.

    Those have all exponent bits set, so read as integers they are the largest: as signed ones where the sign
    bit is clear, as unsigned ones where it is set. Two integer maxima are
    many times faster than np.isfinite on float16.
    """
    if not values.size:
        return False
    signed, unsigned = (np.dtype(f"{kind}{values.dtype.itemsize}") for kind in "iu")
    infinities = np.array([np.inf, -np.inf], values.dtype)
    return bool(
        values.view(signed).max() >= infinities.view(signed)[0]
        or values.view(unsigned).max() >= infinities.view(unsigned)[1]
    )
