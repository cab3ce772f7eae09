"""Losses of a whole batch of which several processes hold a part each.

Each process passes its images through the network, the only costly step. The representations are then gathered, and
each process computes the loss of the whole batch: a contrastive loss compares all of its images, and a statistic is
of all of them, as in one process. Every parameter gets the gradient of that loss from DistributedDataParallel's mean
over the processes: of what comes after gathering, each holds the same gradient; of what comes before, each holds that
of its own images, times the number of processes, since the gradients of gathered values are summed.
"""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.nn.functional import all_reduce


def gathered(values: Tensor, crops: int = 1) -> Tensor:
    """Return the values [crops * N, ...] of the whole batch, given those [crops * n, ...] of this process's images.

    Ordered as in one process: the first crops of the images of process 0, 1, ..., then the second crops. Differentiable
    where the values are floating-point numbers. Without a process group the values are the whole batch.
    """
    if not torch.distributed.is_initialized():
        return values
    counts = images_of_each_process(len(values) // crops, values.device)
    start = sum(counts[: torch.distributed.get_rank()])
    # A sum of zeros and of each process's own rows: unlike an all-gather, it takes processes with unequal numbers.
    whole = values.new_zeros(crops, sum(counts), *values.shape[1:])
    whole[:, start : start + len(values) // crops] = values.unflatten(0, (crops, -1))
    if values.is_floating_point():
        whole = all_reduce(whole)
    else:
        torch.distributed.all_reduce(whole)
    return whole.flatten(0, 1)


def images_of_each_process(count: int, device: torch.device) -> list[int]:
    """Return the number of images that each process holds, given that of this one."""
    if not torch.distributed.is_initialized():
        return [count]
    counts = torch.zeros(torch.distributed.get_world_size(), dtype=torch.int64, device=device)
    counts[torch.distributed.get_rank()] = count
    torch.distributed.all_reduce(counts)
    return counts.tolist()
