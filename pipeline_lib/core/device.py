"""The device that a stage computes on."""

from __future__ import annotations

import torch

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.gpu_slots import take_gpu


def choose_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda" on which a job computes; a GPU is this process's own until it ends.

    On a GPU, float32 is float32 from then on, also in convolutions, whose inputs cuDNN otherwise rounds to the 10 bits
    of TensorFloat-32, and their gradients are the same each time.

    Raises `PipelineError` when there is no GPU for "cuda".
    """
    device = find_device(name)
    if device.type == "cuda":
        take_gpu(torch.cuda.device_count())
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    return device


def find_device(name: str) -> torch.device:
    """Return the device of a name: "auto" (a GPU where there is one), or one of torch's, such as "cpu" or "cuda:1".

    Raises `PipelineError` when there is no GPU for "cuda", and for a name that torch doesn't know.
    """
    # GPUs are counted by the driver: CUDA itself must not start before it is told which GPU.
    if name == "auto":
        return torch.device("cuda" if torch.cuda.device_count() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise PipelineError(f"device '{name}' is unknown to torch; allowed: auto, cpu, cuda, cuda:0 ...") from None
    if device.type == "cuda" and not torch.cuda.device_count():
        raise PipelineError(f"device '{name}' was asked for, but torch sees no GPU; allowed here: auto, cpu")
    return device
