"""Project representations of some classes of one set on two dimensions, by t-SNE and UMAP."""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "backbone, dataset, split, classes, class_count, max_images, perplexity, neighbours and seed")
    add_path(parser, "--dataset", "dataset artefact")
    add_path(parser, "--features", "folder of the split's view eval")
    add_path(parser, "--output", "folder of the projection")


def run(arguments: argparse.Namespace) -> None:
    """Project and write."""
    from pipeline_lib.evaluation.projection import project
    from pipeline_lib.features.cache import FeatureCache

    project(arguments.spec, arguments.dataset, FeatureCache(arguments.features), arguments.output)
