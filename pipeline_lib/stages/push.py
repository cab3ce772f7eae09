"""Upload a checkpoint to the Hugging Face Hub, from where load("owner/name") gets it.

Log in first: hf auth login (or set HF_TOKEN).
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    parser.add_argument("checkpoint", type=Path, help="folder of a checkpoint")
    parser.add_argument("--repository", required=True, metavar="OWNER/NAME", help="made where it isn't there")
    parser.add_argument("--public", action="store_true", help="make a new repository visible to everyone")
    parser.add_argument("--message", help="of the commit")


def run(arguments: argparse.Namespace) -> None:
    """Check and upload."""
    from pipeline_lib.checkpoints.hub import push

    print(push(arguments.checkpoint, arguments.repository, not arguments.public, arguments.message))
