"""Convert a checkpoint for programs without this library: ONNX or torch.export, for batches of any size.

The file takes `images` (float32 [n, 3, H, W], normalised) and gives `representation` and `uncertainty`.
"""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path
from pipeline_lib.stages.checkpoint_arguments import add_backbone, load_with_backbone

_EXAMPLE = """\
example:
  python -m pipeline_lib convert results/checkpoints/resnet/default --to onnx --output resnet.onnx
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    parser.epilog = _EXAMPLE
    parser.add_argument("checkpoint", help="folder of a checkpoint, or its id on the Hub (owner/name)")
    parser.add_argument("--to", required=True, choices=["onnx", "torch_export"], help="the format")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="heads to use (default: all, averaged)")
    add_backbone(parser)
    add_path(parser, "--output", "the file to write (.onnx, or .pt2)")


def run(arguments: argparse.Namespace) -> None:
    """Load, convert, compare, write."""
    from pipeline_lib.checkpoints.exchange import write_onnx, write_program

    model = load_with_backbone(arguments.checkpoint, arguments.backbone, arguments.code_dir, arguments.seeds)
    write = write_onnx if arguments.to == "onnx" else write_program
    write(model, arguments.output)
    print(f"{arguments.output}: equal to {arguments.checkpoint}, {arguments.output.stat().st_size / 1e6:.1f} MB")
