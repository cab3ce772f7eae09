"""Gather the metric rows of every evaluation into one tidy table."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    parser.add_argument("--evaluations", nargs="+", type=Path, required=True, metavar="PATH", help="their folders")
    parser.add_argument("--output", type=Path, required=True, metavar="PATH", help="the table to write (csv)")


def run(arguments: argparse.Namespace) -> None:
    """Gather and write."""
    from pipeline_lib.evaluation.aggregate import aggregate

    aggregate(arguments.evaluations, arguments.output)
