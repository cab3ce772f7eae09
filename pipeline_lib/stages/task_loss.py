"""Compute a task loss that needs no classifier, of each image and epoch of a view of the upstream training images."""

from __future__ import annotations

import argparse
import sys

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
    import numpy as np
    import torch

    from pipeline_lib.core.device import choose_device
    from pipeline_lib.core.progress import Progress
    from pipeline_lib.features.cache import FeatureCache, naming_images
    from pipeline_lib.task_losses.losses import Comparison, images_without_partner, losses_of
    from pipeline_lib.task_losses.store import write_task_loss

    spec = arguments.spec
    torch.set_num_threads(spec["threads"])
    cache = FeatureCache(arguments.features)
    comparison = Comparison(spec["temperature"], spec["images"], spec["seed"])
    of_image = cache.read_all("label")
    if spec["task_loss"] == "knn" and (alone := images_without_partner(of_image, comparison)):
        print(
            f"{alone:,} of {cache.rows:,} images have no other image of their class among the {comparison.images:,} "
            "that they are compared with, and get the largest loss that one could leave them with; set "
            f"task_losses.images to at least twice the number of classes ({len(np.unique(of_image)):,})",
            file=sys.stderr,
        )
    losses = losses_of(spec["task_loss"], cache, of_image, comparison, choose_device(spec["device"]))
    label = f"task loss {spec['task_loss']} of {spec['backbone']} on view {spec['view']}"
    with (
        naming_images(arguments.features),
        Progress(cache.rows * cache.epochs, "images", label) as progress,
        torch.inference_mode(),
    ):
        write_task_loss(arguments.output, spec, cache, losses, progress.advance)
