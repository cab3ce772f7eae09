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

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.ownership import RUN_LOCK, require_results

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


def begin_run(directory: Path, results: Path, dry_run: bool) -> None:
    """Remove what a killed run left in the working directory, and hold the results until this process ends.

    A dry run holds nothing. Raises `PipelineError` when another run holds the results, or others' files lie there.
    """
    require_results(results)
    state = directory / ".snakemake"
    state.mkdir(exist_ok=True)
    if not _is_held_by_another(state / "running.lock", until_the_end=True):
        remove_locks(directory)
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # `check_writable` says so once there is something to write
    if _is_held_by_another(results / RUN_LOCK, until_the_end=not dry_run) and not dry_run:
        holder = (results / RUN_LOCK).read_text(errors="replace").strip()
        raise PipelineError(
            f"{results}: another snakemake is at work on these results{f' ({holder})' if holder else ''}; wait for its "
            "end, or choose another results_dir"
        )


def _is_held_by_another(path: Path, until_the_end: bool) -> bool:
    """Return whether another process holds a lock; else hold it until this one ends, or not at all.

    Where nothing can be written, or the file system knows no locks, nobody holds it.
    """
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        return error.errno not in _NO_LOCKS
    if until_the_end:
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    else:
        os.close(lock)
    return False


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
