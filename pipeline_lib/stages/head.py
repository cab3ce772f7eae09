"""Train uncertainty heads on cached features: each gets head.safetensors, head.json and curve.jsonl.

While a head is trained, each of its episodes is appended to <output>.live.jsonl, which can be followed with tail -f.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline_lib.config.task_losses import CROSS_ENTROPY
from pipeline_lib.config.training import SHARED_IN_A_PASS
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.heads.spec import HeadSpec as Spec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config
    from pipeline_lib.features.rows import FeatureRows

INPUTS = (
    Input("features", "the view's cache of the upstream training images"),
    Input("task_loss", "the view's task loss, unless training.task_loss is the classifier's", required=False),
)
# Below so many optimiser steps heads are far from what the same data could teach them.
_FEW_STEPS = 300
OUTPUT = "heads/{backbone}/{variant}/seed{seed}"


def wanted(config: Config) -> list[Ref]:
    """Return the heads that a config asks for."""
    return [
        Ref.to("head", backbone=backbone, variant=variant, seed=seed)
        for backbone, variant in config.heads()
        for seed in config.seeds
    ]


def inputs(config: Config, backbone: str, variant: str, seed: str) -> Refs:
    """Return the artefacts that a job reads."""
    dataset, split = config.upstream.dataset, config.upstream.train_split
    view, task_loss = config.variant(variant).view, config.task_loss_of(backbone, variant)
    from_features = task_loss == CROSS_ENTROPY
    return {
        "features": Ref.to("cache", backbone=backbone, dataset=dataset, split=split, view=view),
        "task_loss": None if from_features else Ref.to("task_loss", backbone=backbone, view=view, task_loss=task_loss),
    }


def plugins(config: Config, backbone: str, variant: str, seed: str) -> list[str]:
    """Return the components that are chosen by name: the loss."""
    return [f"heads.losses.{config.training_of(variant).loss.kind}"]


def together(spec: Spec) -> tuple[object, ...]:
    """Return what heads have in common that one process trains, in one pass over the cache."""
    shared = (getattr(spec.training, field) for field in SHARED_IN_A_PASS)
    return spec.backbone, spec.dataset, spec.split, spec.view, *shared


def check_images(config: Config, images: int, classes: int, backbone: str, variant: str, seed: str) -> None:
    """Raise `PipelineError` where so many upstream images are no batch or all warm-up; warn where they are few."""
    from pipeline_lib.heads.schedule import episodes_of, usable_rows

    training, view = config.training_of(variant), config.variant(variant).view
    try:
        seen = usable_rows(images, training.epochs or config.view_epochs(view), training.batch_size)
        episodes_of(seen, training)
    except PipelineError as error:
        upstream = f"{config.upstream.dataset}/{config.upstream.train_split}"
        raise PipelineError(f"variant '{variant}' on upstream '{upstream}' ({images:,} images): {error}") from None
    if seen // training.batch_size < _FEW_STEPS:
        _warn_once(
            f"WARNING: heads of variant '{variant}' take only {seen // training.batch_size} optimiser steps: "
            f"{_FEW_STEPS} or more are needed to learn much; raise training.epochs or lower training.batch_size "
            "(of fit, raise --steps)"
        )


@functools.cache
def _warn_once(text: str) -> None:
    print(text, file=sys.stderr)


def run(job: Job[Spec]) -> None:
    """Train a head."""
    run_together([job])


def run_together(jobs: Sequence[Job[Spec]]) -> None:
    """Train heads that read the same cache."""
    from pipeline_lib.core.progress import Progress
    from pipeline_lib.features.cache import naming_images
    from pipeline_lib.heads.checkpoint import write_head
    from pipeline_lib.heads.curve import live_curve
    from pipeline_lib.heads.schedule import usable_rows
    from pipeline_lib.heads.train import train_heads

    specs = [job.spec for job in jobs]
    training, backbone = specs[0].training, specs[0].backbone
    if any(job.inputs != jobs[0].inputs for job in jobs):
        raise PipelineError("heads that are trained together must read the same features; train them one by one")
    rows = _rows(jobs[0])
    images = usable_rows(rows.rows, training.epochs or rows.epochs, training.batch_size)
    which = (
        f"{specs[0].variant}, seed {specs[0].seed}" if len(jobs) == 1 else f"view {specs[0].view}, {len(jobs)} heads"
    )
    with contextlib.ExitStack() as stack:
        append = {
            job.spec: stack.enter_context(live_curve(job.output.with_name(f"{job.output.name}.live.jsonl")))
            for job in jobs
        }
        stack.enter_context(naming_images(jobs[0].input("features").parent))
        progress = stack.enter_context(Progress(images, "images", f"head of {backbone}, {which}"))
        heads = train_heads(rows, specs, lambda head, record: append[head](record), progress)
        for job, head in zip(jobs, heads, strict=True):
            write_head(job, head)


def _rows(job: Job[Spec]) -> FeatureRows:
    """Return the rows that a head learns from: the cache of the view, with the task loss that the recipe names.

    Raises `PipelineError` when the recipe needs a task loss that isn't given, or doesn't need it, `ArtefactError` when
    it needs another one.
    """
    from pipeline_lib.core.errors import ArtefactError
    from pipeline_lib.features.cache import FeatureCache
    from pipeline_lib.task_losses.store import WithTaskLoss

    task_loss, directory = job.spec.training.task_loss or CROSS_ENTROPY, job.optional_input("task_loss")
    if (task_loss == CROSS_ENTROPY) != (directory is None):
        advice = "leave --task-loss out" if directory is not None else "give its folder as --task-loss"
        raise PipelineError(f"training.task_loss is {task_loss}; {advice}")
    cache = FeatureCache(job.input("features").parent)
    if directory is None:
        if "task_loss" not in cache.arrays:
            spec = job.spec
            raise PipelineError(
                f"training.task_loss is {CROSS_ENTROPY}, but {cache.view_dir} has no array 'task_loss': which outputs "
                f"of the classifier of '{spec.backbone}' the classes of '{spec.dataset}' are is not known; set "
                f"datasets.{spec.dataset}.outputs, or training.task_loss to knn, probe or contrastive"
            )
        return cache
    rows = WithTaskLoss(cache, directory)
    if rows.spec.options.kind != task_loss:
        raise ArtefactError(f"{directory}: is the task loss {rows.spec.options.kind}, but {task_loss} was asked for")
    return rows
