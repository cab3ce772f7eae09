"""Checkpoints to take home: `representation, uncertainty = model(images)`.

    from pipeline_lib.pretrained import load

    model = load("results/checkpoints/resnet/default")

What needs torch is imported when it is first asked for: the stage that writes checkpoints does without.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline_lib.pretrained.loading import load
    from pipeline_lib.pretrained.model import PretrainedModel

__all__ = ["PretrainedModel", "load"]

_MODULES = {"PretrainedModel": "model", "load": "loading"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
