"""Compute a task loss that needs no classifier, of each image and epoch of a view of the upstream training images."""

from __future__ import annotations

import argparse

from pipeline_lib.stages.arguments import add_path, add_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    add_spec(
        parser,
        "backbone, dataset, split, view, task_loss (knn or contrastive), temperature, images, seed, device, threads",
    )
    add_path(parser, "--features", "view of the upstream training images, which holds blocks/ and cache/")
    add_path(parser, "--output", "folder of the task loss")


def run(arguments: argparse.Namespace) -> None:
    """Compute and write."""
    import torch

    from pipeline_lib.device import choose_device
    from pipeline_lib.features.cache import FeatureCache, naming_images
    from pipeline_lib.progress import Progress
    from pipeline_lib.task_losses.losses import Comparison, losses_of
    from pipeline_lib.task_losses.store import write_task_loss

    spec = arguments.spec
    torch.set_num_threads(spec["threads"])
    cache = FeatureCache(arguments.features)
    comparison = Comparison(spec["temperature"], spec["images"], spec["seed"])
    losses = losses_of(spec["task_loss"], cache, cache.read_all("label"), comparison, choose_device(spec["device"]))
    label = f"task loss {spec['task_loss']} of {spec['backbone']} on view {spec['view']}"
    with (
        naming_images(arguments.features),
        Progress(cache.rows * cache.epochs, "images", label) as progress,
        torch.inference_mode(),
    ):
        write_task_loss(arguments.output, spec, cache, losses, progress.advance)
