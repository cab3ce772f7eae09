"""Write a checkpoint to take home: model.safetensors, config.json and a model card (README.md).

from pipeline_lib.pretrained import load
representation, uncertainty = load(FOLDER)(images)
"""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec, named_paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "backbone, variant, seeds, include_backbone, sets (dataset and split of each, upstream first)")
    add_path(parser, "--backbone", "backbone artefact")
    parser.add_argument("--heads", nargs="+", required=True, metavar="SEED=PATH", help="the head of each seed")
    add_path(parser, "--upstream", "the heads' evaluation of the upstream set")
    add_path(parser, "--metrics", "metrics.csv, for the card")
    add_path(parser, "--output", "folder of the checkpoint")


def run(arguments: argparse.Namespace) -> None:
    """Write the checkpoint."""
    from pipeline_lib.pretrained.export import export_checkpoint

    export_checkpoint(
        arguments.spec,
        arguments.backbone,
        {int(seed): path for seed, path in named_paths(arguments.heads).items()},
        arguments.upstream,
        arguments.metrics,
        arguments.output,
    )
