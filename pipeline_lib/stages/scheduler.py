"""The argument of stages that compute on a dask scheduler."""

from __future__ import annotations

import argparse


def add_scheduler(parser: argparse.ArgumentParser) -> None:
    """Add `--scheduler`: where dask computes; it changes no result."""
    parser.add_argument(
        "--scheduler",
        metavar="NAME|ADDRESS",
        help="threads, processes, or the address of a dask.distributed scheduler such as tcp://host:8786 "
        "(default: $DASK_SCHEDULER_ADDRESS, or threads)",
    )
