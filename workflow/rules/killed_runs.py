"""Healing after a run that was killed, so that the same command just goes on.

A `kill -9` leaves two things in `.snakemake`: lock files, which would refuse the next run, and markers of
outputs whose jobs had not finished, which would stop it. This process also holds a lock of the operating system,
which ends with the process: whoever gets it knows that nobody else is running here, and that what lies there
belongs to the dead.
"""

from __future__ import annotations

import fcntl
import os
from base64 import urlsafe_b64decode
from pathlib import Path


def heal_killed_run(directory: Path) -> None:
    """Clean up after a killed run in a working directory; do nothing while another run is alive there.

    Outputs of unfinished jobs are removed: Snakemake makes them again. Locks are removed.
    """
    state = directory / ".snakemake"
    state.mkdir(exist_ok=True)
    lock = os.open(state / "running.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until this process ends
    except OSError:
        os.close(lock)  # a run is alive: Snakemake's own locks decide
        return
    for path in (state / "locks").glob("*.lock"):
        path.unlink(missing_ok=True)
    markers = state / "incomplete"
    for marker in [path for path in markers.rglob("*") if path.is_file()]:
        output = _marked_output(marker.relative_to(markers))
        if output is not None:
            (directory / output).unlink(missing_ok=True)
            marker.unlink()


def _marked_output(marker: Path) -> Path | None:
    """Return the output that a marker is named after: its path in base64, in pieces `@...` where it is long."""
    text = "".join(part.removeprefix("@") for part in marker.parts)
    try:
        return Path(urlsafe_b64decode(text).decode())
    except ValueError:
        return None  # a file of Snakemake's own
