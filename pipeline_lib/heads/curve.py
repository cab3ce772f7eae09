"""The training curve of a head in a file to follow while it is trained; afterwards it is in the artefact."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline_lib.heads.checkpoint import Record


@contextlib.contextmanager
def live_curve(path: Path) -> Iterator[Callable[[Record], None]]:
    """Open a JSON-lines file to follow with `tail -f`; yields what appends the record of an episode.

    The file is there while the block runs: afterwards the curve is in the artefact, or there is no head whose curve it
    is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:

        def append(record: Record) -> None:
            file.write(json.dumps(record) + "\n")
            file.flush()

        try:
            yield append
        finally:
            path.unlink(missing_ok=True)
