from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import active_children

import pytest
import torch

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.loading import loaded


class Images:
    """Loads tensors; the fault happens at the second, in the process that loads it."""

    def __init__(self, fault: Callable[[], None]) -> None:
        self.fault = fault

    def __call__(self, item: int) -> torch.Tensor:
        if item == 1:
            self.fault()
        return torch.full((2,), item)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    os._exit(7)


def not_there() -> None:
    raise FileNotFoundError("photo.jpg is not there")


def refused() -> None:
    raise RuntimeError("the transform refuses this image")


def unreadable() -> None:
    class LocalError(Exception):
        """Can't be pickled, since no other process would find it."""

    raise LocalError("photo.jpg has no end")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("fault", "reason"), [(die, "killed by SIGKILL"), (leave, "exit status 7")])
def test_a_worker_that_dies_is_one_line(fault: Callable[[], None], reason: str, workers: int) -> None:
    with pytest.raises(PipelineError, match=rf"a process that decodes images died \({reason}\); .*, lower that"):
        list(loaded(Images(fault), range(3), workers, advice="lower that"))
    assert not active_children()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("fault", "kind"), [(not_there, FileNotFoundError), (refused, RuntimeError)])
def test_what_a_worker_meets_stays_what_it_is(fault: Callable[[], None], kind: type, workers: int) -> None:
    with pytest.raises(kind, match=r"not there|refuses") as caught:
        list(loaded(Images(fault), range(3), workers))
    if workers:  # and says where
        assert f"in {fault.__name__}" in caught.value.__notes__[0]


def test_an_exception_that_cannot_be_sent_keeps_its_text() -> None:
    with pytest.raises(RuntimeError, match=r"LocalError: photo.jpg has no end"):
        list(loaded(Images(unreadable), range(3), 1))


def piece(item: int) -> dict[str, torch.Tensor | str]:
    """Two megabytes: more than a pipe holds."""
    return {"pixels": torch.full((1 << 21,), item, dtype=torch.uint8), "name": str(item)}


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_what_workers_load_is_what_this_process_would_load(workers: int) -> None:
    for here, there in zip(loaded(piece, range(5), 0), loaded(piece, range(5), workers), strict=True):
        assert here["name"] == there["name"] and torch.equal(here["pixels"], there["pixels"])
        there["pixels"].add_(1)  # is memory of its own


def test_who_wants_no_more_ends_the_workers() -> None:
    items = loaded(piece, range(100), 2)
    next(items)
    assert len(active_children()) == 2
    items.close()
    assert not active_children()


@pytest.mark.parametrize("size", [1 << 10, 1 << 19])
def test_workers_killed_at_any_moment_leave_nobody_waiting(size: int) -> None:
    """Between two items, within one, before the first: the parent says so, at the next item that it asks for."""
    for moment in range(20):
        items = loaded(bytearray, [size] * 20_000, 2, ahead=16)
        next(items)
        time.sleep(random.Random(moment).random() / 100)
        victim = active_children()[moment % 2]
        threading.Timer(0.001, victim.kill).start()
        with pytest.raises(PipelineError, match=r"died \(killed by SIGKILL\)"):
            list(items)


def test_workers_end_when_their_parent_is_killed() -> None:
    script = (
        "import os\n"
        "from multiprocessing import active_children\n"
        "from pipeline_lib.datasets.loading import loaded\n"
        "from tests.unit.test_loading import piece\n"
        "items = loaded(piece, range(1000), 2)\n"
        "next(items)\n"
        "print(*(child.pid for child in active_children()), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    # Its output ends when the last worker, which has inherited it, does.
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.returncode == -signal.SIGKILL and len(done.stdout.split()) == 2


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_full_dev_shm_hinders_nobody() -> None:
    """As in a container, whose /dev/shm has 64 MB, which torch passes tensors through."""
    script = (
        "from pipeline_lib.datasets.loading import loaded\n"
        "from tests.unit.test_loading import piece\n"
        "print(len(list(loaded(piece, range(4), 2))), 'items')\n"
    )
    mount = (
        "mount -t tmpfs -o size=4k tmpfs /dev/shm && dd if=/dev/zero of=/dev/shm/full bs=4096 count=1 2>/dev/null && "
        f'exec {sys.executable} -c "$1"'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, "sh", script], capture_output=True, text=True, timeout=120
    )
    assert "4 items" in done.stdout, done.stderr
