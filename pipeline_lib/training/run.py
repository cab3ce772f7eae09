"""A whole training, epoch after epoch, which goes on after a kill where it was."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

from torch import Tensor

from pipeline_lib.core.progress import Progress
from pipeline_lib.training.images import ImageBatches
from pipeline_lib.training.processes import process_number, union, wait_for_all
from pipeline_lib.training.state import SavedState
from pipeline_lib.training.trainer import Record, Trainer

# Maps uint8 pixels [n, 3, H, W] to (embedding [n, d], logits [n, classes], uncertainty [n]).
Predict = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
# Says how good predictions are on held-out images, in values by name.
Validate = Callable[[Predict], Record]


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
