"""Measure the 1-NN error of one set without its most uncertain images, as queries and in the database."""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "backbone, variant, seeds, dataset, split, is_upstream, shares, table_share")
    add_path(parser, "--features", "the eval view of the split, which holds blocks/ and cache/")
    add_path(parser, "--baselines", "the baselines' evaluation of the same set")
    add_path(parser, "--scores", "the heads' evaluation of the same set")
    add_path(parser, "--neighbours", "neighbours artefact of the split")
    add_path(parser, "--output", "folder of the errors")


def run(arguments: argparse.Namespace) -> None:
    """Measure and write."""
    from pipeline_lib.evaluation.safe_retrieval import evaluate_safe_retrieval
    from pipeline_lib.features.cache import FeatureCache

    evaluate_safe_retrieval(
        arguments.spec,
        FeatureCache(arguments.features),
        arguments.baselines,
        arguments.scores,
        arguments.neighbours,
        arguments.output,
    )
