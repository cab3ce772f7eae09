"""The device that a stage computes on."""

from __future__ import annotations

import torch

from pipeline_lib.errors import PipelineError


def choose_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda"; raises `PipelineError` when there is no GPU for "cuda"."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise PipelineError("device 'cuda' was asked for, but torch sees no GPU; allowed here: auto, cpu")
    return torch.device(name)
