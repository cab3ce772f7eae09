"""Say what a config will take before anything runs: jobs, images, bytes of cache, and hours by a short measurement.

Hours are those of extraction, measured here and now: each backbone's architecture with random weights at its image
size, and decoding and augmentation on one core. Training and evaluation are counted as jobs but not in hours. Tables
and figures, seconds each, are left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pipeline_lib.core.errors import PipelineError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    parser.add_argument("--config", type=Path, default=Path("config.yaml"), metavar="PATH", help="default: config.yaml")
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="NAME/SPLIT=N",
        help="the number of images in a split that is not here",
    )
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="how long to measure each backbone; 0 = no hours (default: 2)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace) -> None:
    """Plan and print."""
    if not 0 <= arguments.seconds <= 3600:
        raise PipelineError(f"--seconds {arguments.seconds}: must lie between 0 and 3600")

    from pipeline_lib.config.load import load_config
    from pipeline_lib.planning.plan import make_plan
    from pipeline_lib.planning.table import plan_text

    given = dict(map(_split_and_size, arguments.images))
    plan = make_plan(load_config(arguments.config), given, arguments.seconds)
    print(json.dumps(plan.as_json(), indent=1) if arguments.json else plan_text(plan))


def _split_and_size(text: str) -> tuple[tuple[str, str], int]:
    name, _, number = text.partition("=")
    dataset, _, split = name.partition("/")
    if not (dataset and split and number.isdecimal() and int(number)):
        raise PipelineError(f"--images {text}: expected NAME/SPLIT=N, such as birds/test=5000")
    return (dataset, split), int(number)
