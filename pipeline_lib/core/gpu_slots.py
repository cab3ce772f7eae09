"""A GPU of its own for each job of a machine.

Snakemake counts GPUs but hands out none, so jobs side by side would all compute on the first. Each job therefore locks
one GPU for as long as its process lives: a lock of the operating system, which ends with the process however that ends,
and which processes that it starts don't inherit.

A scheduler's choice is respected: only what CUDA_VISIBLE_DEVICES lists is handed out. Numbers in it count from a job's
own first GPU where the scheduler hides the others, so each job of a scheduler has locks of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from pipeline_lib.core.errors import PipelineError

FOLDER_VARIABLE = "PIPELINE_GPU_LOCKS"
_SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
_SECONDS_BETWEEN_TRIES = 1.0

# The lock of this process: (descriptor, GPU). Never closed here: the end of the process is the end of the lock.
_held: tuple[int, str] | None = None


def take_gpu(count: int) -> str:
    """Lock a GPU for this process, waiting for one where all are taken, and make it the only one that CUDA sees.

    count: how many GPUs CUDA would see, at least 1. To be called before CUDA starts, which reads its variable once.
    Returns the GPU as CUDA_VISIBLE_DEVICES names it: a number, or the identifier that stood there. A second call
    returns the same. Raises `PipelineError` when the folder of the locks can't be used.
    """
    global _held
    if _held is None:
        _held = _lock_one(visible_gpus(count), lock_folder())
        os.environ["CUDA_VISIBLE_DEVICES"] = _held[1]
    return _held[1]


def visible_gpus(count: int) -> list[str]:
    """Return the names of the GPUs that CUDA sees: those in CUDA_VISIBLE_DEVICES, or the numbers below count."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in listed.split(",")] if listed else [str(number) for number in range(count)]
    return names[:count]  # CUDA reads the list up to the first that does not exist


def lock_folder() -> Path:
    """Return the folder of the locks: that of $PIPELINE_GPU_LOCKS, or one of this user's in the temporary folder.

    Users who share GPUs without a scheduler set the variable to a folder that all of them may write to; what is made
    there, be it the folder itself, all users may write to.
    """
    folder = os.environ.get(FOLDER_VARIABLE) or f"{tempfile.gettempdir()}/pretrained-visual-uncertainties-{os.getuid()}"
    scheduled = [f"{name}-{os.environ[name]}" for name in _SCHEDULERS if os.environ.get(name)]
    return Path(folder, *scheduled[:1])


def _lock_one(gpus: Sequence[str], folder: Path) -> tuple[int, str]:
    waiting = False
    while True:
        for gpu in gpus:
            descriptor = _try_lock(folder, gpu)
            if descriptor is not None:
                return descriptor, gpu
        if not waiting:
            print(f"waiting for a GPU: other jobs compute on {', '.join(gpus)}", file=sys.stderr, flush=True)
            waiting = True
        time.sleep(_SECONDS_BETWEEN_TRIES)


def _try_lock(folder: Path, gpu: str) -> int | None:
    """Return the descriptor of a GPU's lock, or None when another process has it."""
    path = folder / f"gpu-{quote(gpu, safe='')}.lock"
    try:
        descriptor = _open(path)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
    except OSError as error:
        raise PipelineError(
            f"{path}: can't lock a GPU ({error.strerror}); set {FOLDER_VARIABLE} to a folder on this machine that "
            "this user may write to"
        ) from None
    return descriptor


def _open(path: Path) -> int:
    """Return a descriptor of the file, made if need be: to lock it, a user must be allowed to write to it."""
    # Not with O_CREAT: in a folder with the sticky bit, Linux then refuses files of others (fs.protected_regular).
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    # By umask, not by chmod afterwards: another user may open it at once.
    umask = os.umask(0 if os.environ.get(FOLDER_VARIABLE) else 0o077)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:  # another job has just made it
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    finally:
        os.umask(umask)
