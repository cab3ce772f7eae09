"""Train the heads of several recipes and seeds in one pass over cached features.

Writes <output>/<variant>/seed<k>/ for each, as stage `head` does for one. While they train, each episode is appended to
<output>/<variant>.live.jsonl, which can be followed with tail -f.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from pipeline_lib.stages.arguments import add_path, add_spec
from pipeline_lib.stages.training_rows import add_task_loss


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(parser, "heads: the spec of each head; they differ in variant, training and seed only")
    add_path(parser, "--features", "view of the upstream training images, which holds blocks/ and cache/")
    add_task_loss(parser)
    add_path(parser, "--output", "folder of the backbone's heads")


def run(arguments: argparse.Namespace) -> None:
    """Train and write the heads."""
    from pipeline_lib.config.training import Training
    from pipeline_lib.core.progress import Progress
    from pipeline_lib.features.cache import naming_images
    from pipeline_lib.heads.checkpoint import write_head
    from pipeline_lib.heads.curve import EpisodeRecord, live_curve
    from pipeline_lib.heads.stream import usable_rows
    from pipeline_lib.heads.train import train_recipes
    from pipeline_lib.stages.training_rows import training_rows

    specs, output = arguments.spec["heads"], arguments.output
    recipes = {spec["variant"]: Training.model_validate(spec["training"]) for spec in specs}
    seeds = list(dict.fromkeys(spec["seed"] for spec in specs))
    rows, inputs = training_rows(specs[0], arguments.features, arguments.task_loss)
    first = next(iter(recipes.values()))
    images = usable_rows(rows.rows, first.epochs or rows.epochs, first.batch_size)
    live = {variant: Path(output) / f"{variant}.live.jsonl" for variant in recipes}
    label = f"{len(specs)} heads of {specs[0]['backbone']} on view {specs[0]['view']}"
    with (
        naming_images(arguments.features),
        contextlib.ExitStack() as stack,
        Progress(images, "images", label) as progress,
    ):
        append = {variant: stack.enter_context(live_curve(path)) for variant, path in live.items()}

        def on_episode(variant: str, record: EpisodeRecord) -> None:
            append[variant](record)

        trained = train_recipes(rows, recipes, seeds, on_episode, progress)
    for spec in specs:
        head = trained[spec["variant"]][seeds.index(spec["seed"])]
        folder = output / spec["variant"] / f"seed{spec['seed']}"
        write_head(folder, spec, head, recipes[spec["variant"]], inputs)
    for path in live.values():
        path.unlink()
