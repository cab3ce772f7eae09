"""Gather the metric rows of every evaluation into one tidy table."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline_lib.stages.arguments import add_path, add_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "downstream (the sets that are averaged)")
    parser.add_argument("--metrics", nargs="+", type=Path, required=True, metavar="PATH", help="metrics.csv files")
    add_path(parser, "--output", "the table to write")


def run(arguments: argparse.Namespace) -> None:
    """Gather and write."""
    from pipeline_lib.evaluation.aggregate import write_metrics

    write_metrics(arguments.spec, arguments.metrics, arguments.output)
