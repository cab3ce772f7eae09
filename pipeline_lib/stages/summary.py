"""Print what the jobs of a results folder took: number, time, images per second and peak memory by stage.

A run prints the same of its own jobs at its end.
"""

from __future__ import annotations

import argparse
from datetime import datetime

from pipeline_lib.stages.arguments import add_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_path(parser, "--results", "the results folder")
    parser.add_argument(
        "--since",
        type=datetime.fromisoformat,
        metavar="TIME",
        help="count the jobs that ended since then, such as 2026-01-31T18:00 (default: each job's last run)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Read the benchmarks and print."""
    from pipeline_lib.core.errors import PipelineError
    from pipeline_lib.summary import finished_jobs, summarise

    jobs = finished_jobs(arguments.results, arguments.since.timestamp() if arguments.since else 0.0)
    if not jobs:
        when = f" since {arguments.since}" if arguments.since else ""
        raise PipelineError(f"{arguments.results}: no job has ended here{when}; run snakemake first")
    print(summarise(jobs), end="")
