"""Build one table from metrics.csv, as csv, md and tex, with the published numbers beside ours where they match."""

from __future__ import annotations

import argparse
import importlib

from pipeline_lib.stages.arguments import add_path, add_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    parser.add_argument("--name", required=True, help="which table: a module of pipeline_lib/stages/tables")
    add_spec(parser, "upstream, upstream_split, downstream, backbones, variants, seeds")
    add_path(parser, "--metrics", "metrics.csv")
    add_path(parser, "--published", "CSV of published numbers", required=False)
    for suffix in ("csv", "md", "tex"):
        add_path(parser, f"--{suffix}", f"the .{suffix} file to write")


def run(arguments: argparse.Namespace) -> None:
    """Build and write the table."""
    from pipeline_lib.tables.render import write
    from pipeline_lib.tables.summary import read_metrics

    # One module per table, found by name: an edit of one makes only that table stale.
    table = importlib.import_module(f"pipeline_lib.stages.tables.{arguments.name}")
    published = read_metrics(arguments.published) if arguments.published else None
    built = table.build(arguments.spec, read_metrics(arguments.metrics), published)
    write(built, arguments.csv, arguments.md, arguments.tex)
