"""Convert a checkpoint of the papers' own code (.pth.tar) to one of ours.

    python -m pipeline_lib convert_reference vit_base_checkpoint.pth.tar \\
      --architecture vit_base_patch16_224.augreg_in21k --output vit_base
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline_lib.stages.arguments import add_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the checkpoint (.pth.tar)")
    parser.add_argument("--architecture", required=True, metavar="NAME", help="timm's name of its backbone")
    parser.add_argument("--heads-only", action="store_true", help="leave the backbone's weights out")
    add_path(parser, "--output", "folder of the checkpoint")


def run(arguments: argparse.Namespace) -> None:
    """Read, check, write."""
    from pipeline_lib.checkpoints.reference import convert_reference

    convert_reference(arguments.file, arguments.architecture, arguments.output, not arguments.heads_only)
    print(f"{arguments.output}: representation, uncertainty = load({str(arguments.output)!r})(images)")
