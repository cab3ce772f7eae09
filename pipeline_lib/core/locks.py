"""Locks of files, which end with the process that holds them, on file systems with and without locks."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Callable
from typing import IO, Any


def held(file: int | IO[Any], take: Callable[[Any, int], object] = fcntl.lockf, wait: bool = False) -> bool:
    """Take the lock of an open file; return False where another process has it.

    Where the file system knows no locks (Lustre's default, some NFS) nobody is kept out, and nobody is refused.

    Parameters
    ----------
    file
        Open for writing.
    take
        `fcntl.lockf`, whose lock is this process's alone, or `fcntl.flock`, whose lock is that of the open file: those
        who inherit it hold it too.
    wait
        Until nobody else has it.
    """
    try:
        take(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True
