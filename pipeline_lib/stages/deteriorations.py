"""Evaluate the heads of one variant, all seeds, on deteriorated images of one set."""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec, named_paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "backbone, variant, seeds, dataset, split, draws, is_upstream")
    add_path(parser, "--features", "folder of the split's view deteriorations, whose epochs are the draws")
    add_path(parser, "--scores", "the heads' evaluation of the clean images of the same set")
    parser.add_argument("--heads", nargs="+", required=True, metavar="SEED=PATH", help="the head of each seed")
    add_path(parser, "--output", "folder of the evaluation")


def run(arguments: argparse.Namespace) -> None:
    """Evaluate and write."""
    from pipeline_lib.evaluation.deteriorations import evaluate_deteriorations
    from pipeline_lib.features.cache import FeatureCache

    evaluate_deteriorations(
        arguments.spec,
        FeatureCache(arguments.features),
        arguments.scores,
        {int(seed): path for seed, path in named_paths(arguments.heads).items()},
        arguments.output,
    )
