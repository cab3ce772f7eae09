"""List what the metrics were made from: every artefact behind them, and the software."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline_lib.stages.arguments import add_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_path(parser, "--results", "the results folder")
    parser.add_argument(
        "--artefacts", nargs="+", type=Path, required=True, metavar="PATH", help="artefacts whose origin to list"
    )
    for name in ("artefacts", "software"):
        add_path(parser, f"--{name}-out", f"the file to write with the {name}")


def run(arguments: argparse.Namespace) -> None:
    """Gather and write."""
    from pipeline_lib.core.artefacts import writing_file
    from pipeline_lib.tables.lineage import artefacts_behind, software

    contents = {
        arguments.artefacts_out: artefacts_behind(arguments.results, arguments.artefacts).to_csv(
            index=False, lineterminator="\n"
        ),
        arguments.software_out: software().to_csv(index=False, lineterminator="\n"),
    }
    for path, text in contents.items():
        with writing_file(path) as file:
            file.write(text)
