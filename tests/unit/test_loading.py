from __future__ import annotations

import os
import signal
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

    def __iter__(self):
        yield torch.zeros(1)
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
