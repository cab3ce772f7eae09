"""The training curve: one record per episode, in the artefact and, while training runs, in a file to follow."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class EpisodeRecord:
    """What one episode did to each head of a stack; no clock time, so that equal runs give equal records."""

    episode: int  # counted from 0
    images: int  # seen by each head at the end of the episode
    learning_rate: float
    loss: tuple[float, ...]  # per head: mean training loss over the episode
    order_accuracy: tuple[float, ...]  # per head: share of pairs ordered like their task losses, chance 0.5

    def of_head(self, index: int) -> dict[str, float]:
        """Return the record of one head, as a line of its `curve.jsonl`."""
        return dataclasses.asdict(self) | {
            "loss": self.loss[index],
            "order_accuracy": self.order_accuracy[index],
        }


@contextlib.contextmanager
def live_curve(path: Path) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Open a JSON-lines file to follow while a head is trained (`tail -f`); yields what appends an episode's record.

    The file is there while the block runs: afterwards the curve is in the artefact, or there is no head whose curve it
    is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:

        def append(record: Mapping[str, float]) -> None:
            file.write(json.dumps(record) + "\n")
            file.flush()

        try:
            yield append
        finally:
            path.unlink(missing_ok=True)
