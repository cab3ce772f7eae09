"""Measure what uncertainty heads add to their backbone: parameters, memory, latency.

    python -m pipeline_lib overhead --checkpoint results/checkpoints/resnet/default --write
    python -m pipeline_lib overhead --architecture vit_small_patch16_224

Measure while the machine does nothing else.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.stages.checkpoint_arguments import add_backbone, load_with_backbone

if TYPE_CHECKING:
    import torch

    from pipeline_lib.checkpoints.model import TimmRepresentation
    from pipeline_lib.heads.model import UncertaintyHead


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    measured = parser.add_mutually_exclusive_group(required=True)
    measured.add_argument("--checkpoint", metavar="DIR", help="a checkpoint, or its id on the Hub, with all its heads")
    measured.add_argument("--architecture", metavar="NAME", help="a timm model with random weights and a new head")
    add_backbone(parser)
    parser.add_argument("--hidden", nargs="+", type=int, default=[512, 512], metavar="WIDTH", help="of the new head")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8], metavar="N", help="images per batch")
    parser.add_argument("--seconds", type=float, default=5.0, help="per batch size (default: 5)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto")
    parser.add_argument("--write", action="store_true", help="put the result into the checkpoint's card")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    from pipeline_lib.checkpoints.overhead import measure, to_markdown, write_into_card
    from pipeline_lib.core.device import choose_device
    from pipeline_lib.core.errors import PipelineError

    if arguments.write and not (arguments.checkpoint and Path(arguments.checkpoint).is_dir()):
        raise PipelineError("--write: needs a --checkpoint that is a folder, whose card it can change")
    if arguments.backbone and not arguments.checkpoint:
        raise PipelineError("--backbone: is that of a --checkpoint; with --architecture, leave it out")
    if min(arguments.batches) < 1:
        raise PipelineError(f"--batches {min(arguments.batches)}: a batch has at least one image")
    device = choose_device(arguments.device)
    amount = {"batches": arguments.batches, "seconds": arguments.seconds}
    if arguments.checkpoint:
        model = load_with_backbone(arguments.checkpoint, arguments.backbone, arguments.code_dir, device=device)
        size: tuple[int, int, int] = model.config.backbone.data_config.input_size
        overhead = measure(model.backbone, model.heads, model.uncertainty_of, size, **amount)
    else:
        backbone, head, size = _with_new_head(arguments.architecture, arguments.hidden, device)
        overhead = measure(backbone, head, head, size, **amount)
    print(to_markdown(overhead), end="")
    if arguments.write:
        write_into_card(Path(arguments.checkpoint), overhead)


def _with_new_head(
    architecture: str, hidden: Sequence[int], device: torch.device
) -> tuple[TimmRepresentation, UncertaintyHead, tuple[int, int, int]]:
    """Return a timm model with random weights, a new head, and the size of the model's images."""
    import timm
    import torch
    from timm.data.config import resolve_model_data_config

    from pipeline_lib.backbones.architectures import check_architecture
    from pipeline_lib.checkpoints.model import TimmRepresentation
    from pipeline_lib.core.errors import PipelineError
    from pipeline_lib.heads.model import UncertaintyHead

    try:
        check_architecture(architecture)
    except ValueError as error:
        raise PipelineError(f"--architecture: {error}") from None
    network = timm.create_model(architecture, pretrained=False).eval()
    size: tuple[int, int, int] = resolve_model_data_config(network)["input_size"]
    backbone = TimmRepresentation(network)
    with torch.inference_mode():
        dim = backbone(torch.zeros(1, *size)).shape[1]
    return backbone.to(device), UncertaintyHead(dim, hidden).to(device), size
