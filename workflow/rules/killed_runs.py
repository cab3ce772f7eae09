"""One run at a time, and healing after one that was killed, so that the same command just goes on.

A `kill -9` leaves two things in `.snakemake`: lock files, which would refuse the next run, and markers of
outputs whose jobs had not finished, which would stop it. A run also holds locks of the operating system, which end
with its process: whoever gets the one of the working directory knows that nobody else is running here, and that what
lies there belongs to the dead. The one of the results keeps a second run away from them, wherever it was started.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
from pathlib import Path

from records import forget_the_future, is_linked, link_read_only, link_records, mark_replaced, named_output

from pipeline_lib.core.artefacts import RUN_LOCK
from pipeline_lib.core.errors import PipelineError

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


def begin_run(directory: Path, results: Path, dry_run: bool) -> None:
    """Heal what a killed run left, hold the results, and bring Snakemake its records of them.

    A dry run holds nothing, and changes nothing while another run is at work. Raises `PipelineError` when another run
    holds the results, or the working directory for other results.
    """
    alone = heal_killed_run(directory)
    free = _hold(results, until_the_end=not dry_run)
    if not free:
        return
    if not os.access(results, os.W_OK):
        if alone:
            link_read_only(directory, results)
        return
    if alone:
        unknown = link_records(directory, results)
        if unknown:
            print(
                f"{results}: no record says how {unknown} files were made, so what is needed of them is made again; "
                "if you know that they belong to this config and this code, run: snakemake --touch",
                file=sys.stderr,
            )
    elif not is_linked(directory, results) and not dry_run:
        raise PipelineError(
            f"{directory}: another snakemake is at work in this folder on other results than {results}; wait for its "
            "end, or run in another folder with --directory"
        )
    for manifest in mark_replaced(directory, results):
        print(f"{manifest}: is not what its record describes, so it is made again where it is needed", file=sys.stderr)
    if not dry_run:
        forget_the_future(directory, results)


def _hold(results: Path, until_the_end: bool) -> bool:
    """Take the lock of the results; return whether nobody else had it.

    Raises `PipelineError` when it was to be held until this process ends, and another has it. Where nothing can be
    written, or the file system knows no locks, there is no lock.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        lock = os.open(results / RUN_LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return True  # `check_writable` says so once there is something to write
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 200).decode(errors="replace").strip()
        os.close(lock)
        if error.errno in _NO_LOCKS:
            return True
        if until_the_end:
            raise PipelineError(
                f"{results}: another snakemake is at work on these results{f' ({holder})' if holder else ''}; wait for "
                "its end, or choose another results_dir"
            ) from None
        return False
    if until_the_end:
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    else:
        os.close(lock)
    return True


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


def heal_killed_run(directory: Path) -> bool:
    """Clean up after a killed run in a working directory; return whether nobody else is running there.

    Outputs of unfinished jobs are removed: Snakemake makes them again. Locks are removed.
    """
    state = directory / ".snakemake"
    state.mkdir(exist_ok=True)
    lock = os.open(state / "running.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until this process ends
    except OSError:
        os.close(lock)  # a run is alive: Snakemake's own locks decide
        return False
    for path in (state / "locks").glob("*.lock"):
        path.unlink(missing_ok=True)
    markers = state / "incomplete"
    for marker in [path for path in markers.rglob("*") if path.is_file()]:
        output = named_output(marker.relative_to(markers))
        if output is None:
            continue
        try:
            (directory / output).unlink(missing_ok=True)
        except OSError:
            continue  # read-only: nothing will be made there either
        marker.unlink()
    return True
