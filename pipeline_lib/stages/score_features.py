"""Score every row of a cache with a head: a parquet of sample_id, epoch and uncertainty.

Works chunk by chunk on a dask scheduler, so that the cache may be larger than memory.
"""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path
from pipeline_lib.stages.command import add_setting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_path(parser, "--features", "folder of the view, which holds blocks/ and cache/")
    add_path(parser, "--head", "the head's artefact")
    add_setting(parser, "scheduler")
    add_path(parser, "--output", "folder of the scores")


def run(arguments: argparse.Namespace) -> None:
    """Score and write."""
    from pipeline_lib.heads.score_features import score_features

    score_features(arguments.features, arguments.head, arguments.output, arguments.scheduler)
