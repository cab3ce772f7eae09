"""Train a classifier and an uncertainty head together from a pretrained backbone: writes curve.jsonl.

After a kill it goes on with the last epoch, whose state lies in <output>.resume while it trains.
"""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "backbone, dataset, train_split, eval_split, stop_gradient, seed, options (the recipe)")
    add_path(parser, "--dataset", "upstream dataset artefact")
    add_path(parser, "--backbone", "backbone artefact, where training starts")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode and augment (default: none)")
    add_path(parser, "--output", "folder of the training curve")


def run(arguments: argparse.Namespace) -> None:
    """Train and write the curve."""
    from pipeline_lib.joint.artefact import write_joint_training

    write_joint_training(arguments.spec, arguments.dataset, arguments.backbone, arguments.output, arguments.workers)
