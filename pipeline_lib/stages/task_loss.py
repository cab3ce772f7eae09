"""Compute a task loss that needs no classifier, of each image and epoch of a view of the upstream training images."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pipeline_lib.config import kinds
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.task_losses.spec import TaskLossSpec as Spec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (Input("features", "the view's cache of the upstream training images"),)
OUTPUT = "task_losses/{backbone}/{view}/{task_loss}"


def inputs(config: Config, backbone: str, view: str, task_loss: str) -> Refs:
    """Return the artefacts that a job reads."""
    dataset, split = config.upstream.dataset, config.upstream.train_split
    return {"features": Ref.to("cache", backbone=backbone, dataset=dataset, split=split, view=view)}


def plugins(config: Config, backbone: str, view: str, task_loss: str) -> list[str]:
    """Return the components that are chosen by name: the task loss."""
    return [f"task_losses.{task_loss}"]


def check_images(config: Config, images: int, classes: int, backbone: str, view: str, task_loss: str) -> None:
    """Raise `PipelineError` where so many upstream images are too few to compare, or to cut into folds."""
    options = config.task_losses.options(task_loss)
    least = max(2, getattr(options, "folds", 2))
    if images < least:
        upstream = f"{config.upstream.dataset}/{config.upstream.train_split}"
        raise PipelineError(
            f"task_loss '{task_loss}' needs {least} images, but upstream '{upstream}' has {images}; add some"
        )
    compared = config.task_losses.images
    if task_loss == "knn" and compared < 2 * classes:
        print(
            f"WARNING: task_losses.images is {compared:,}, but 'knn' needs two of each of {classes:,} classes: set it "
            f"to {2 * classes:,} or more",
            file=sys.stderr,
        )


def run(job: Job[Spec]) -> None:
    """Compute and write."""
    import torch

    from pipeline_lib.core.device import choose_device
    from pipeline_lib.core.progress import Progress
    from pipeline_lib.features.cache import FeatureCache, naming_images
    from pipeline_lib.task_losses.store import write_task_loss

    spec, options, view_dir = job.spec, job.spec.options, job.input("features").parent
    torch.set_num_threads(options.threads)
    cache, task_loss = FeatureCache(view_dir), kinds.load("task_losses", options.kind)
    if hasattr(task_loss, "warning") and (warning := task_loss.warning(cache, options)):
        print(warning, file=sys.stderr)
    losses = task_loss.losses(cache, options, choose_device(options.device))
    title = f"task loss {options.kind} of {spec.backbone} on view {spec.view}"
    with (
        naming_images(view_dir),
        Progress(cache.rows * cache.epochs, "images", title) as progress,
        torch.inference_mode(),
    ):
        write_task_loss(job, cache, losses, progress.advance)
