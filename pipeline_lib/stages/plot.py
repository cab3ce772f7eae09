"""Draw one figure from metrics.csv and per-sample scores, as png and pdf."""

from __future__ import annotations

import argparse
import importlib

from pipeline_lib.stages.arguments import add_path, add_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    parser.add_argument("--name", required=True, help="which figure: a module of pipeline_lib/stages/figures")
    add_spec(parser, "upstream, upstream_split, downstream, backbones, variants, seeds, size")
    add_path(parser, "--published", "CSV of published numbers", required=False)
    add_path(parser, "--results", "the results folder, from which the figure reads what it needs")
    for suffix in ("png", "pdf"):
        add_path(parser, f"--{suffix}", f"the .{suffix} file to write")


def run(arguments: argparse.Namespace) -> None:
    """Draw and write the figure."""
    from pipeline_lib.plots.style import save

    # One module per figure, found by name: an edit of one makes only that figure stale.
    figure = importlib.import_module(f"pipeline_lib.stages.figures.{arguments.name}")
    drawn = figure.draw({**arguments.spec, "published": arguments.published}, arguments.results)
    save(drawn, arguments.png, arguments.pdf, arguments.spec["size"]["dpi"])
