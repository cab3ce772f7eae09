"""List the images of a dataset: writes index.parquet and manifest.json."""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "name, options (the dataset's config section), data_dir")
    add_path(parser, "--output", "folder of the dataset artefact")


def run(arguments: argparse.Namespace) -> None:
    """Write the dataset artefact."""
    from pipeline_lib.datasets.images import write_dataset

    write_dataset(arguments.spec, arguments.output)
