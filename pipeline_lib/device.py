"""The device that a stage computes on."""

from __future__ import annotations

import torch

from pipeline_lib.errors import PipelineError
from pipeline_lib.gpu_slots import take_gpu


def choose_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda"; a GPU is this process's own until it ends.

    Raises `PipelineError` when there is no GPU for "cuda".
    """
    # Asked of the driver: CUDA itself must not start before it is told which GPU.
    gpus = 0 if name == "cpu" else torch.cuda.device_count()
    if name == "cuda" and not gpus:
        raise PipelineError("device 'cuda' was asked for, but torch sees no GPU; allowed here: auto, cpu")
    if not gpus:
        return torch.device("cpu")
    take_gpu(gpus)
    return torch.device("cuda")
