"""Arguments that are shared by the stages that load a checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from pipeline_lib.checkpoints.model import PretrainedModel


def add_backbone(parser: argparse.ArgumentParser) -> None:
    """Add `--backbone` and `--code-dir`."""
    parser.add_argument(
        "--backbone",
        metavar="NAME|MODULE:FUNCTION",
        help="where the checkpoint holds heads alone, or its backbone is your own code: a timm model name, or the "
        "function that returns the network, in a module below --code-dir",
    )
    parser.add_argument(
        "--code-dir", default=".", metavar="PATH", help="folder of the module that --backbone names (this folder)"
    )


def load_with_backbone(
    checkpoint: str,
    backbone: str | None,
    code_dir: str,
    seeds: Sequence[int] | None = None,
    device: str | torch.device = "cpu",
    precision: str = "float32",
) -> PretrainedModel:
    """Load a checkpoint with what `--backbone` and `--code-dir` name, if anything."""
    from pipeline_lib.backbones.custom import import_factory
    from pipeline_lib.checkpoints.loading import load

    if backbone is not None and ":" in backbone and not backbone.startswith("hf-hub:"):
        return load(checkpoint, seeds, device, import_factory(backbone, code_dir), precision)
    return load(checkpoint, seeds, device, backbone, precision)
