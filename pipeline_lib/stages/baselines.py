"""Evaluate one set without any head: Recall@1, accuracy, and uncertainties that need none."""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "backbone, dataset, split, is_upstream, bootstrap, target_accuracies, compat")
    add_path(parser, "--dataset", "dataset artefact")
    add_path(parser, "--features", "folder of the split's views, which holds eval/ and centre_crop/")
    add_path(parser, "--neighbours", "neighbours artefact of the split")
    add_path(parser, "--upstream", "the baselines' evaluation of the upstream set (for any other set)", required=False)
    add_path(parser, "--output", "folder of the evaluation")


def run(arguments: argparse.Namespace) -> None:
    """Evaluate and write."""
    from pipeline_lib.evaluation.baselines import evaluate_baselines
    from pipeline_lib.features.cache import FeatureCache

    evaluate_baselines(
        arguments.spec,
        arguments.dataset,
        FeatureCache(arguments.features / "eval"),
        FeatureCache(arguments.features / "centre_crop"),
        arguments.neighbours,
        arguments.upstream,
        arguments.output,
    )
