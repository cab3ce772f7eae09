"""Drafts: what is being written lies beside its target, under a name that says by whom, until it is whole.

A writer that is killed leaves its draft. The next writer of the same target on the same machine removes it; those that
no such writer comes for, as after another node has taken over the job, are found by `abandoned_drafts`. A folder is a
draft only if it is marked as one, whatever its name.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pipeline_lib.core.ownership import DRAFT_MARK
from pipeline_lib.core.processes import is_alive

# Of another machine nobody can tell here whether the writer lives; one that does writes more often than this.
_UNTOUCHED_SECONDS = 24 * 3600
_NAME = re.compile(r"\..+\.partial-(?P<host>.+)-(?P<process>\d+)")


@contextlib.contextmanager
def writing_file(path: Path, mode: str = "w", lasting: bool = True) -> Iterator[IO[Any]]:
    """Write one file whole or not at all: yields a file beside `path` that replaces it at the end.

    lasting: it must outlive a power cut. False for files by the thousand that are looked at and written anew at each
    start: waiting for the disk and looking for abandoned drafts, each time in the whole folder, would take minutes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = draft_path(path)
    if lasting:
        remove_abandoned_drafts(path)
    try:
        with open(partial, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def draft_path(target: Path) -> Path:
    """Return where this process writes what is to become the target."""
    return target.parent / f"{_prefix(target)}{os.getpid()}"


def remove_abandoned_drafts(target: Path) -> None:
    """Remove drafts of a target by writers of this machine that are gone (killed), so that nothing piles up."""
    if not target.parent.is_dir():
        return
    prefix = _prefix(target)
    for path in target.parent.iterdir():
        if path.name.startswith(prefix) and _is_ours(path) and not _is_written(path.name.removeprefix(prefix)):
            remove_draft(path)


def abandoned_drafts(folder: Path) -> Iterator[Path]:
    """Yield the drafts below a folder that nobody will finish.

    Those are of this machine where the writer is gone, and of other machines where nothing in them was written for a
    day.
    """
    for path in sorted(folder.rglob(".*.partial-*")):
        name = _NAME.fullmatch(path.name)
        if name is None or not _is_ours(path):
            continue
        if name["host"] == socket.gethostname():
            abandoned = not _is_written(name["process"])
        else:
            abandoned = time.time() - _last_written(path) > _UNTOUCHED_SECONDS
        if abandoned:
            yield path


def remove_draft(path: Path) -> None:
    """Remove a draft, be it a file or a folder; the mark last, so that what is left by a kill is still known as one."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):
        for entry in path.iterdir():
            if entry.name != DRAFT_MARK:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        shutil.rmtree(path)


def _is_ours(path: Path) -> bool:
    """Return whether what is named as a draft is one: a plain file, an empty folder, or a marked one."""
    return path.is_file() or (path.is_dir() and ((path / DRAFT_MARK).exists() or not any(path.iterdir())))


def _prefix(target: Path) -> str:
    return f".{target.name}.partial-{socket.gethostname()}-"


def _last_written(path: Path) -> float:
    """Return when a draft, or anything in it, was last written; now, where its writer is just renaming it."""
    try:
        return max(found.stat().st_mtime for found in (path, *path.rglob("*")))
    except FileNotFoundError:
        return time.time()


def _is_written(process: str) -> bool:
    """Return whether the process that a draft is named after is another one that still runs."""
    return process.isdecimal() and int(process) != os.getpid() and is_alive(int(process))
