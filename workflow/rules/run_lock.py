"""Telling a run that was killed from one that is alive.

Snakemake locks its working directory with plain files, which outlive a `kill -9`. This process therefore also
holds a lock of the operating system, which ends with the process: whoever gets it knows that nobody else is
running here, and that lock files that are still there belong to the dead.
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

_held: list[IO[str]] = []


def heal_killed_run(directory: Path) -> None:
    """Remove the Snakemake locks of a killed run below `directory`; does nothing while another run is alive."""
    state = directory / ".snakemake"
    state.mkdir(exist_ok=True)
    lock = open(state / "running.lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()  # a run is alive, or this is one of its jobs: Snakemake's own locks decide
        return
    _held.append(lock)  # until this process ends
    for path in (state / "locks").glob("*.lock"):
        path.unlink(missing_ok=True)
