"""Extract one block of representations: decode each image once, draw all its epochs, run the backbone."""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(
        parser,
        "dataset, backbone, split, view, samples, epochs, with_task_loss, format, dtype, precision, device, "
        "batch_size, chunk_rows, threads",
    )
    add_path(parser, "--dataset", "dataset artefact")
    add_path(parser, "--backbone", "backbone artefact")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode and augment (default: none)")
    add_path(parser, "--output", "folder of the block")


def run(arguments: argparse.Namespace) -> None:
    """Write the block."""
    from pipeline_lib.features.extract import extract_block
    from pipeline_lib.progress import Progress

    spec = arguments.spec
    total = (spec["samples"][1] - spec["samples"][0]) * (spec["epochs"][1] - spec["epochs"][0])
    with Progress(total, "images", f"{spec['backbone']} on {spec['dataset']}, {spec['view']['kind']}") as progress:
        extract_block(
            spec, arguments.dataset, arguments.backbone, arguments.output, arguments.workers, progress.advance
        )
