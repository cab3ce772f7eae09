"""Train one uncertainty head on cached features: writes head.safetensors, head.json and curve.jsonl.

While it trains, each episode is appended to <output>.live.jsonl, which can be followed with tail -f.
"""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec
from pipeline_lib.stages.training_rows import add_task_loss


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "backbone, variant, seed, dataset, split, view, training (the recipe)")
    add_path(parser, "--features", "view of the upstream training images, which holds blocks/ and cache/")
    add_task_loss(parser)
    add_path(parser, "--output", "folder of the head")


def run(arguments: argparse.Namespace) -> None:
    """Train and write the head."""
    from pipeline_lib.config.training import Training
    from pipeline_lib.core.progress import Progress
    from pipeline_lib.features.cache import naming_images
    from pipeline_lib.heads.checkpoint import write_head
    from pipeline_lib.heads.curve import live_curve
    from pipeline_lib.heads.stream import usable_rows
    from pipeline_lib.heads.train import train_heads
    from pipeline_lib.stages.training_rows import training_rows

    spec, output = arguments.spec, arguments.output
    training = Training.model_validate(spec["training"])
    rows, inputs = training_rows(spec, arguments.features, arguments.task_loss)
    images = usable_rows(rows.rows, training.epochs or rows.epochs, training.batch_size)
    live = output.with_name(f"{output.name}.live.jsonl")
    label = f"head of {spec['backbone']}, {spec['variant']}, seed {spec['seed']}"
    with (
        naming_images(arguments.features),
        live_curve(live) as on_episode,
        Progress(images, "images", label) as progress,
    ):
        (head,) = train_heads(rows, training, [spec["seed"]], on_episode, progress)
    write_head(output, spec, head, training, inputs)
    live.unlink()
