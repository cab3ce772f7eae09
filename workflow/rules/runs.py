"""One run at a time, and going on after one that was killed, so that the same command just works.

A `kill -9` leaves lock files in `.snakemake`, which would refuse the next run. A run also holds locks of the operating
system, which end with its process: whoever gets the one of the working directory knows that the lock files there belong
to the dead. The one of the results keeps a second run away from them, wherever it was started.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from engine import remove_locks

from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.core.ownership import MANIFEST, RUN_LOCK
from pipeline_lib.core.walk import folders_of_artefacts

# Who holds a lock; nobody can tell where the file system knows no locks, or nothing can be written.
Holder = Literal["this process", "another", "unknown"]


def begin_run(directory: Path, results: Path, dry_run: bool) -> None:
    """Remove what a killed run left in the working directory, and hold the results until this process ends.

    A dry run holds nothing. Raises `PipelineError` when another run holds the results, or nobody can tell.
    """
    state = directory / ".snakemake"
    state.mkdir(exist_ok=True)
    if _lock(state / "running.lock") == "this process":
        remove_locks(directory)
    if dry_run:
        return
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # `check_writable` says so once there is something to write
    if _lock(results / RUN_LOCK) == "another":
        holder = (results / RUN_LOCK).read_text(errors="replace").strip()
        raise PipelineError(
            f"{results}: another snakemake is at work on these results{f' ({holder})' if holder else ''}; wait for its "
            "end, or choose another results_dir"
        )


def is_held(results: Path) -> bool:
    """Return whether a run is at work on results."""
    try:
        return _lock(results / RUN_LOCK, only_look=True) == "another"
    except PipelineError:
        return True


def _lock(path: Path, only_look: bool = False) -> Holder:
    """Hold a lock until this process ends, unless told only to look, and return who holds it now.

    Raises `PipelineError` for the file of another user that can't be opened.
    """
    lock = _open(path, [os.O_RDONLY] if only_look else [os.O_RDWR | os.O_CREAT, os.O_RDONLY])
    if lock is None:
        return "unknown"
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if only_look else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        return "another" if error.errno in (errno.EAGAIN, errno.EACCES) else "unknown"
    if only_look:
        os.close(lock)
    else:
        with contextlib.suppress(OSError):  # another user's, which can only be read
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
    return "this process"


def _open(path: Path, flags: list[int]) -> int | None:
    """Open the file of a lock in the first way that works; None where there is none."""
    refusal = None
    for flag in flags:
        try:
            return os.open(path, flag, 0o666)
        except OSError as error:
            refusal = error.errno
    if refusal == errno.EACCES:
        raise PipelineError(
            f"{path}: can't be opened (Permission denied), so nobody can tell whether another snakemake is at work; "
            "have its owner make it readable (chmod a+r), or work in a folder of your own"
        )
    return None


@contextlib.contextmanager
def deleting_whole_artefacts(results: Path) -> Iterator[None]:
    """Let files of artefacts that are deleted in this block take along the other files of their artefact."""
    before = [set(_present(folder)) for folder in folders_of_artefacts(results, worlds=False)]
    yield
    for files in before:
        if not all(file.exists() for file in files):
            for file in files:
                file.unlink(missing_ok=True)
            for folder in sorted({folder for file in files for folder in file.parents}, reverse=True):
                if folder.is_relative_to(results):
                    with contextlib.suppress(OSError):  # of a folder with something else in it
                        folder.rmdir()


def _present(folder: Path) -> Iterator[Path]:
    """Yield the files of an artefact that are there."""
    try:
        names = artefacts.read(folder, verify=False).files
    except ArtefactError:
        return
    yield from filter(Path.exists, (Path(os.path.normpath(folder / name)) for name in (MANIFEST, *names)))


def check_writable(results: Path) -> None:
    """Raise `PipelineError` when nothing can be written to the results."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        probe = results / f".writable-{socket.gethostname()}-{os.getpid()}"
        try:
            probe.write_bytes(bytes(4096))  # a full disk takes empty files
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise PipelineError(
            f"{results}: can't be written ({os.strerror(error.errno or 0)}); make it writable, free some space, or "
            "choose another results_dir"
        ) from None
