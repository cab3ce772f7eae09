"""Describe the representations of a view: means, norms, zeros, NaNs, effective dimension, images per class.

Works chunk by chunk on a dask scheduler, so that the cache may be larger than memory.
"""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec
from pipeline_lib.stages.scheduler import add_scheduler


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "backbone, dataset, split, view")
    add_path(parser, "--features", "folder of the view, which holds blocks/ and cache/")
    add_scheduler(parser)
    add_path(parser, "--output", "folder of the statistics")


def run(arguments: argparse.Namespace) -> None:
    """Compute and write."""
    from pipeline_lib.features.statistics import write_statistics

    write_statistics(arguments.spec, arguments.features, arguments.output, arguments.scheduler)
