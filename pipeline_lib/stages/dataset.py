"""List the images of a dataset, or check one by hand.

dataset --spec ... --output ...     writes index.parquet and manifest.json, as the workflow does
dataset NAME --check                prints a card of the config's dataset NAME and writes it, with a contact sheet
                                    of random images, to <results_dir>/cards/NAME
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.stages.arguments import add_path, read_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="dataset of the config, with --check")
    parser.add_argument(
        "--check", action="store_true", help="describe NAME: counts, sizes, unreadable and repeated images, leakage"
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("config.yaml"),
        metavar="PATH",
        help="config that names the dataset and the upstream set, with --check (%(default)s)",
    )
    parser.add_argument(
        "--spec",
        type=read_spec,
        metavar="JSON|FILE",
        help="what to list, as JSON or as a file with JSON (a manifest.json will do): name, options (the dataset's "
        "config section), data_dir",
    )
    add_path(parser, "--output", "folder of the dataset artefact", required=False)


def run(arguments: argparse.Namespace) -> None:
    """Write the dataset artefact, or check a dataset."""
    listing = [arguments.spec is not None, arguments.output is not None]
    if arguments.check and arguments.name is not None and not any(listing):
        # By name, so that the index doesn't depend on the code of the card: an edit there must make no index stale.
        importlib.import_module("pipeline_lib.stages.dataset_check").check(arguments.name, arguments.config)
    elif all(listing) and arguments.name is None and not arguments.check:
        from pipeline_lib.datasets.images import write_dataset

        write_dataset(arguments.spec, arguments.output)
    else:
        raise PipelineError("give NAME and --check to describe a dataset, or --spec and --output to list its images")
