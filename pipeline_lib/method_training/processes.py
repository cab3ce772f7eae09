"""Several processes that train one model together, one for each GPU: torchrun starts them, gloo or NCCL joins them."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import distributed

from pipeline_lib.core.errors import PipelineError

# The others wait while the first one evaluates.
_LONGEST_WAIT = datetime.timedelta(hours=12)


def started_by_torchrun() -> bool:
    """Return whether this is one of the processes that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def run_in_processes(arguments: Sequence[str], processes: int) -> None:
    """Run `python -m pipeline_lib <arguments>` in this many processes at once.

    Raises `PipelineError` when one of them fails; what went wrong it has printed itself.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    finished = subprocess.run([*launcher, "-m", "pipeline_lib", *arguments], check=False)
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
    found: list[dict[int, str] | None] = [None] * process_count()
    distributed.all_gather_object(found, entries)
    return {key: value for each in found for key, value in each.items()}
