"""Train uncertainty heads, of one recipe or several, in one pass over the cached features."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pipeline_lib.config.training import SHARED_IN_A_PASS, Training
from pipeline_lib.core.device import choose_device
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.progress import Progress
from pipeline_lib.features.rows import FeatureRows
from pipeline_lib.heads.checkpoint import Record, TrainedHead
from pipeline_lib.heads.run import TrainingRun
from pipeline_lib.heads.schedule import usable_rows
from pipeline_lib.heads.spec import HeadSpec
from pipeline_lib.heads.stream import ShuffledBuffer, shuffled_buffers

_CAST_ROWS = 256


def train_heads(
    rows: FeatureRows,
    heads: Sequence[HeadSpec],
    on_episode: Callable[[HeadSpec, Record], None] = lambda head, record: None,
    progress: Progress | None = None,
) -> list[TrainedHead]:
    """Train heads, all in one pass over the cache; return them in order.

    A seed sets a head's initial weights and the order of its batches, so a head comes out the same alone or beside any
    others: on a CPU to the last bit, on a GPU, where heads of one recipe share batched products, up to rounding. The
    learning rate changes with the images that a head has seen, once per episode.

    Parameters
    ----------
    rows
        The cached embeddings and task losses.
    heads
        Their recipes agree in what `SHARED_IN_A_PASS` lists. `epochs` = None means each cached epoch once.
    on_episode
        Called with a head and the record of each of its episodes when it ends.
    progress
        Is advanced by the images of each step.

    Raises
    ------
    PipelineError
        When there are fewer images than a batch, when a warm-up is longer than the training, when a feature is not
        finite, when a loss becomes NaN or infinite, or when recipes can't share a pass.
    """
    shared = _shared(heads)
    epochs = shared.epochs or rows.epochs
    images_to_see = usable_rows(rows.rows, epochs, shared.batch_size)
    device = choose_device(shared.device)
    seeds = list(dict.fromkeys(head.seed for head in heads))
    by_recipe: dict[Training, list[HeadSpec]] = {}
    for head in heads:
        by_recipe.setdefault(head.training, []).append(head)
    runs = [TrainingRun(some, seeds, rows.dim, images_to_see, device, on_episode) for some in by_recipe.values()]
    sizes = (shared.batch_size, shared.shuffle_rows, shared.shuffle_buffer)
    buffers = shuffled_buffers(rows, epochs, *sizes, seeds, pinned=device.type == "cuda")
    with _cpu_threads(shared.threads), contextlib.closing(buffers):
        for embedding, task_loss in _batches(buffers, shared.batch_size, getattr(torch, shared.precision), device):
            for run in runs:
                run.step(embedding, task_loss)
            if progress is not None:
                progress.advance(shared.batch_size)
    trained = {head: result for run in runs for head, result in run.trained().items()}
    return [trained[head] for head in heads]


def _shared(heads: Sequence[HeadSpec]) -> Training:
    """Return a recipe whose `SHARED_IN_A_PASS` holds for all; raises `PipelineError` when there is none."""
    first, *others = heads
    for field in SHARED_IN_A_PASS:
        expected = getattr(first.training, field)
        for other in others:
            if (value := getattr(other.training, field)) != expected:
                raise PipelineError(
                    f"training.{field} is {expected} in '{first.variant}' but {value} in '{other.variant}'; "
                    "heads that are trained in one pass must agree in it"
                )
    return first.training


def _batches(
    buffers: Iterator[ShuffledBuffer], batch_size: int, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches: embeddings [S, B, d] in the type of the products and task losses [S, B] float32.

    The embeddings of all batches share their memory: a new allocation of this size is new pages for each batch.
    """
    stored: Tensor | None = None
    for buffer in buffers:
        orders = torch.from_numpy(buffer.orders).to(device)
        heads, count = orders.shape
        if stored is None:  # the first buffer is the largest
            embedding, stored, batch = _workspaces(buffer, batch_size, dtype, device)
        _fill(embedding, buffer.segments)
        task_loss = torch.from_numpy(buffer.task_loss).to(device)
        for start in range(0, count, batch_size):
            picked = orders[:, start : start + batch_size].flatten()
            torch.index_select(embedding, 0, picked, out=stored)
            if batch is not stored:
                batch.copy_(stored)
            yield batch.view(heads, batch_size, -1), task_loss.index_select(0, picked).view(heads, batch_size)


def _workspaces(
    buffer: ShuffledBuffer, batch_size: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return uninitialised memory for the rows of a buffer, a batch for each head as they are kept there, and cast.

    Rows are kept in the smaller type of their own and that of the products.
    """
    heads, count = buffer.orders.shape
    segment = buffer.segments[0]
    kept = segment.dtype if segment.dtype.itemsize < dtype.itemsize else dtype
    embedding = torch.empty((count, segment.shape[1]), dtype=kept, device=device)
    stored = torch.empty((heads * batch_size, segment.shape[1]), dtype=kept, device=device)
    return embedding, stored, stored if kept == dtype else torch.empty_like(stored, dtype=dtype)


def _fill(embedding: Tensor, segments: list[Tensor]) -> None:
    """Move segments into the rows of a tensor, in its type; the list is empty then, and their memory free.

    On a CPU to bfloat16 by way of float32, in blocks that stay in a core's cache: torch's direct cast from float16 is
    not vectorised (2.0 ms for 2,048 x 768 on two cores, against 0.45 ms by way of float32), and blocks save
    another 40 % of the processor time.
    """
    in_blocks = embedding.device.type == "cpu" and embedding.dtype == torch.bfloat16
    start = 0
    while segments:
        segment = segments.pop(0)
        target = embedding[start : start + len(segment)]
        start += len(segment)
        if in_blocks:
            for rows, block in zip(segment.split(_CAST_ROWS), target.split(_CAST_ROWS), strict=True):
                block.copy_(rows.float())
        else:
            # Cast there: from one device to another, torch casts on the CPU.
            target.copy_(segment.to(target.device, non_blocking=True))


@contextlib.contextmanager
def _cpu_threads(count: int) -> Iterator[None]:
    """Run with this many CPU threads, then set back what was before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
