"""One run at a time, and going on after one that was killed, so that the same command just works.

A `kill -9` leaves lock files in `.snakemake`, which would refuse the next run. A run also holds locks of the operating
system, which end with its process: whoever gets the one of the working directory knows that the lock files there belong
to the dead. The one of the results keeps a second run away from them, wherever it was started.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

from engine import remove_locks

from pipeline_lib.core.artefacts import RUN_LOCK
from pipeline_lib.core.errors import PipelineError

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


def begin_run(directory: Path, results: Path, dry_run: bool) -> None:
    """Remove what a killed run left in the working directory, and hold the results until this process ends.

    A dry run holds nothing. Raises `PipelineError` when another run holds the results.
    """
    state = directory / ".snakemake"
    state.mkdir(exist_ok=True)
    if _hold(state / "running.lock") is not False:
        remove_locks(directory)
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # `check_writable` says so once there is something to write
    held = _hold(results / RUN_LOCK)
    if held is False and not dry_run:
        holder = (results / RUN_LOCK).read_text(errors="replace").strip()
        raise PipelineError(
            f"{results}: another snakemake is at work on these results{f' ({holder})' if holder else ''}; wait for its "
            "end, or choose another results_dir"
        )
    if isinstance(held, int) and held is not False:
        if dry_run:
            os.close(held)
        else:
            os.ftruncate(held, 0)
            os.write(held, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _hold(path: Path) -> int | bool:
    """Return the descriptor of a lock that ends with this process; False: another has it; True: there are no locks."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        return error.errno in _NO_LOCKS
    return lock


def check_writable(results: Path) -> None:
    """Raise `PipelineError` when nothing can be written to the results."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        probe = results / f".writable-{socket.gethostname()}-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PipelineError(
            f"{results}: can't be written ({os.strerror(error.errno or 0)}); make it writable, or choose another "
            "results_dir"
        ) from None
