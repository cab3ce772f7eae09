"""Several processes that train one model together, one for each GPU: torchrun starts them, gloo or NCCL joins them.

The loss is that of the whole batch, of which each process holds a part. Each passes its images through the network,
the only costly step. The representations are then gathered, and each process computes the loss of the whole batch: a
contrastive loss compares all of its images, and a statistic is of all of them, as in one process. Every parameter gets
the gradient of that loss from DistributedDataParallel's mean over the processes: of what comes after gathering, each
holds the same gradient; of what comes before, each holds that of its own images, times the number of processes, since
the gradients of gathered values are summed.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_reduce

from pipeline_lib.core.errors import PipelineError

# The module that each process runs.
COMMAND = "pipeline_lib"
# The others wait while the first one evaluates.
_LONGEST_WAIT = datetime.timedelta(hours=12)


def started_by_torchrun() -> bool:
    """Return whether this is one of the processes that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def run_in_processes(arguments: Sequence[str], processes: int) -> None:
    """Run `python -m pipeline_lib <arguments>` in this many processes at once.

    Raises
    ------
    PipelineError
        One of them failed; it has printed what went wrong itself.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    finished = subprocess.run([*launcher, "-m", COMMAND, *arguments], check=False)
    if finished.returncode != 0:
        raise PipelineError(
            f"{processes} processes trained together and one of them failed; the line above that begins with "
            f"'{arguments[0]}: error' says why"
        )


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Connect the processes that torchrun started; do nothing where they are connected.

    On GPUs each sees one alone, which `choose_device` has locked for it. Without torchrun there is one process, and
    nothing to connect.
    """
    if not started_by_torchrun() or distributed.is_initialized():
        yield
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_LONGEST_WAIT)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def process_count() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def process_number() -> int:
    """Return which of them this one is; process 0 evaluates and writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def wait_for_all() -> None:
    """Return when all processes have come here."""
    if distributed.is_initialized():
        distributed.barrier()


def union(entries: dict[int, str]) -> dict[int, str]:
    """Return the entries of all processes."""
    if not distributed.is_initialized():
        return entries
    found: list[dict[int, str]] = [{} for _ in range(process_count())]
    distributed.all_gather_object(found, entries)
    return {key: value for of_process in found for key, value in of_process.items()}


def gathered(values: Tensor, crops: int = 1) -> Tensor:
    """Return the values [crops * N, ...] of the whole batch, given those [crops * n, ...] of this process's images.

    Ordered as in one process: the first crops of the images of process 0, 1, ..., then the second crops. Differentiable
    where the values are floating-point numbers. Without a process group the values are the whole batch.
    """
    if not distributed.is_initialized():
        return values
    counts = images_of_each_process(len(values) // crops, values.device)
    start = sum(counts[: distributed.get_rank()])
    # A sum of zeros and of each process's own rows: unlike an all-gather, it takes processes with unequal numbers.
    whole = values.new_zeros(crops, sum(counts), *values.shape[1:])
    whole[:, start : start + len(values) // crops] = values.unflatten(0, (crops, -1))
    if values.is_floating_point():
        whole = all_reduce(whole)
    else:
        distributed.all_reduce(whole)
    return whole.flatten(0, 1)


def images_of_each_process(count: int, device: torch.device) -> list[int]:
    """Return the number of images that each process holds, given that of this one."""
    if not distributed.is_initialized():
        return [count]
    counts = torch.zeros(distributed.get_world_size(), dtype=torch.int64, device=device)
    counts[distributed.get_rank()] = count
    distributed.all_reduce(counts)
    return counts.tolist()
