"""Check that the blocks of a view are complete and belong together, and record them."""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "block (what the specs of all blocks have in common), epochs, block_samples, block_epochs")
    add_path(parser, "--dataset", "dataset artefact")
    add_path(parser, "--view", "folder of the view, which holds blocks/; the record goes into its cache/")


def run(arguments: argparse.Namespace) -> None:
    """Write the record."""
    from pipeline_lib.features.cache import write_cache

    write_cache(arguments.spec, arguments.dataset, arguments.view)
