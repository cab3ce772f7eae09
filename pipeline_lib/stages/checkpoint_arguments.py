"""Arguments that are shared by the stages that load a checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from pipeline_lib.checkpoints.model import PretrainedModel


def add_backbone(parser: argparse.ArgumentParser) -> None:
    """Add `--backbone`."""
    parser.add_argument(
        "--backbone",
        metavar="NAME|MODULE:FUNCTION",
        help="where the checkpoint holds heads alone, or its backbone is your own code: a timm model name, or the "
        "function that returns the network, in a module below this folder",
    )


def load_with_backbone(
    checkpoint: str,
    backbone: str | None,
    seeds: Sequence[int] | None = None,
    device: str | torch.device = "cpu",
    precision: str = "float32",
) -> PretrainedModel:
    """Load a checkpoint with what `--backbone` names, if anything."""
    from pipeline_lib.backbones.custom import import_factory
    from pipeline_lib.checkpoints.loading import load

    if backbone is not None and ":" in backbone and not backbone.startswith("hf-hub:"):
        return load(checkpoint, seeds, device, import_factory(backbone, "."), precision)
    return load(checkpoint, seeds, device, backbone, precision)
