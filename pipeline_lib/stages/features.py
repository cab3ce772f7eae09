"""Extract blocks of representations: decode each image once, draw all its views and epochs, run the backbone.

One block has one --spec and one --output; for several views of the same images, list as many of each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.stages.arguments import add_path, read_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    parser.add_argument(
        "--spec",
        type=read_spec,
        nargs="+",
        required=True,
        metavar="JSON|FILE",
        help="what to make, as JSON or as a file with JSON (a manifest.json will do): dataset, backbone, split, view, "
        "samples, epochs, with_task_loss, format, dtype, precision, device, batch_size, chunk_rows, threads; several "
        "where blocks differ in view and epochs alone",
    )
    add_path(parser, "--dataset", "dataset artefact")
    add_path(parser, "--backbone", "backbone artefact")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode and augment (default: none)")
    parser.add_argument(
        "--output",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="folder of the block; one for each spec, in the same order",
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the blocks."""
    specs, outputs = arguments.spec, arguments.output
    if len(specs) != len(outputs):
        raise PipelineError(
            f"there are {len(specs)} specs and {len(outputs)} outputs; give one --output for each --spec"
        )
    if len(set(outputs)) != len(outputs):
        raise PipelineError(f"--output names a folder twice: {', '.join(map(str, outputs))}; give each block its own")

    from pipeline_lib.core.progress import Progress
    from pipeline_lib.features.extract import extract_blocks

    total = sum((spec["samples"][1] - spec["samples"][0]) * (spec["epochs"][1] - spec["epochs"][0]) for spec in specs)
    views = ", ".join(dict.fromkeys(spec["view"]["kind"] for spec in specs))
    with Progress(total, "images", f"{specs[0]['backbone']} on {specs[0]['dataset']}, {views}") as progress:
        extract_blocks(
            dict(zip(outputs, specs, strict=True)),
            arguments.dataset,
            arguments.backbone,
            arguments.workers,
            progress.advance,
        )
