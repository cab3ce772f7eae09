"""Evaluate the heads of one variant, all seeds, on one set."""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec, named_paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "backbone, variant, seeds, dataset, split, is_upstream, bootstrap, target_accuracies, compat")
    add_path(parser, "--features", "folder of the split's views, which holds eval/ and centre_crop/")
    add_path(parser, "--baselines", "the baselines' evaluation of the same set")
    parser.add_argument("--heads", nargs="+", required=True, metavar="SEED=PATH", help="the head of each seed")
    add_path(parser, "--upstream", "the heads' evaluation of the upstream set (for any other set)", required=False)
    add_path(parser, "--neighbours", "neighbours artefact of the same set, for its mix with upstream", required=False)
    add_path(parser, "--output", "folder of the evaluation")


def run(arguments: argparse.Namespace) -> None:
    """Evaluate and write."""
    from pipeline_lib.evaluation.heads import evaluate_heads
    from pipeline_lib.features.cache import FeatureCache

    evaluate_heads(
        arguments.spec,
        FeatureCache(arguments.features / "eval"),
        FeatureCache(arguments.features / "centre_crop"),
        arguments.baselines,
        {int(seed): path for seed, path in named_paths(arguments.heads).items()},
        arguments.upstream,
        arguments.neighbours,
        arguments.output,
    )
