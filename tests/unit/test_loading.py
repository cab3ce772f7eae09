from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.loading import loaded


class Images(Dataset):
    """Three tensors; the fault happens at the second, in the process that loads it."""

    def __init__(self, fault) -> None:
        self.fault = fault

    def __len__(self) -> int:
        return 3

    def __getitem__(self, item: int) -> torch.Tensor:
        if item == 1:
            self.fault()
        return torch.full((2,), item)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def not_there() -> None:
    raise FileNotFoundError("photo.jpg is not there")


def refused() -> None:
    raise RuntimeError("the transform refuses this image")


class BrokenLoader(SimpleNamespace):
    """A loader whose worker dies while what it sent is being fetched."""

    collate_fn = None

    def __iter__(self):
        yield pickle.dumps(torch.zeros(1))
        raise self.error


def test_a_worker_that_dies_is_one_line():
    with pytest.raises(PipelineError, match=r"a process that decodes images died \(DataLoader worker .*lower that"):
        list(loaded(DataLoader(Images(die), batch_size=None, num_workers=1), "lower that"))


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(104, "Connection reset by peer"),
        EOFError(),
        FileNotFoundError(2, "No such file", "/tmp/socket"),
    ],
)
def test_a_worker_that_dies_while_its_tensor_is_fetched_is_the_same_line(error):
    with pytest.raises(PipelineError, match="a process that decodes images died"):
        list(loaded(BrokenLoader(error=error, num_workers=2)))
    with pytest.raises(type(error)):  # without workers it is an error of the images
        list(loaded(BrokenLoader(error=error, num_workers=0)))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("fault", "kind"), [(not_there, FileNotFoundError), (refused, RuntimeError)])
def test_what_a_worker_meets_stays_what_it_is(fault, kind, workers):
    with pytest.raises(kind, match=r"not there|refuses"):
        list(loaded(DataLoader(Images(fault), batch_size=None, num_workers=workers)))


class Pieces(Dataset):
    """Tensors of two megabytes."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, item: int) -> dict[str, torch.Tensor | str]:
        return {"pixels": torch.full((1 << 21,), item, dtype=torch.uint8), "name": str(item)}


def test_what_workers_load_is_what_this_process_would_load():
    def items(workers):
        return list(loaded(DataLoader(Pieces(), batch_size=None, num_workers=workers)))

    for here, there in zip(items(0), items(2), strict=True):
        assert here["name"] == there["name"] and torch.equal(here["pixels"], there["pixels"])
        there["pixels"].add_(1)  # is memory of its own


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
@pytest.mark.parametrize(("size", "printed"), [("1m", "4 items"), ("4k", "/dev/shm is full")])
def test_a_small_dev_shm_hangs_nothing(size, printed, tmp_path):
    """As in a container, whose /dev/shm has 64 MB: torch would wait for ever for a tensor that didn't fit."""
    script = (
        "from torch.utils.data import DataLoader\n"
        "from pipeline_lib.core.errors import PipelineError\n"
        "from pipeline_lib.datasets.loading import loaded\n"
        "from tests.unit.test_loading import Pieces\n"
        "try:\n"
        "    print(len(list(loaded(DataLoader(Pieces(), batch_size=None, num_workers=2)))), 'items')\n"
        "except PipelineError as error:\n"
        "    print(error)\n"
    )
    fill = "dd if=/dev/zero of=/dev/shm/full bs=4096 count=1 2>/dev/null &&" if size == "4k" else ""
    mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && {fill} exec {sys.executable} -c "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, "sh", script], capture_output=True, text=True, timeout=120
    )
    assert printed in done.stdout, done.stderr
