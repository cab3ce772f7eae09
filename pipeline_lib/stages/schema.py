"""Print the JSON Schema of the config (workflow/schemas/config.schema.json)."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This stage has no options."""


def run(arguments: argparse.Namespace) -> None:
    """Print the schema."""
    from pipeline_lib.config.schema import schema_text

    sys.stdout.write(schema_text())
