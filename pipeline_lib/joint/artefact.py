"""The artefact of a joint training, and how it goes on after a kill."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import torch
import xxhash

from pipeline_lib.backbones.artefact import open_backbone
from pipeline_lib.backbones.base import Backbone
from pipeline_lib.backbones.training_images import ImageBatches
from pipeline_lib.backbones.training_state import SavedState
from pipeline_lib.core import artefacts
from pipeline_lib.core.device import choose_device
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Job
from pipeline_lib.core.progress import Progress
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.plain_views import AugmentedView, EvaluationView
from pipeline_lib.joint.evaluate import evaluate
from pipeline_lib.joint.train import JointTrainer

if TYPE_CHECKING:
    from pipeline_lib.stages.joint_training import Spec

CURVE = "curve.jsonl"

Record = dict[str, float | None]


def write_joint_training(job: Job[Spec]) -> None:
    """Train classifier and head together and write the curve (`curve.jsonl`, `manifest.json`).

    A line of the curve is the state after `epoch` epochs, from 0 = the pretrained backbone with a fresh head: the
    metrics of `joint.evaluate` on the evaluation split, and the epoch's mean training losses (None before the first).

    Raises `PipelineError` when the backbone classifies other classes, for images that can't be decoded (more than the
    dataset allows), and when a loss is not finite.
    """
    spec, recipe, seed, workers = job.spec, job.spec.options, job.spec.seed, job.settings.workers
    torch.set_num_threads(recipe.threads)
    images = ImageDataset(job.input("dataset"), spec.train_split)
    evaluated = ImageDataset(job.input("dataset"), spec.eval_split)
    backbone = open_backbone(job.input("backbone"), choose_device(recipe.device))
    _check_classes(spec.backbone, backbone, images)
    view = AugmentedView(recipe, seed, backbone.data_config)
    training = ImageBatches(images, view, recipe.batch_size, workers)
    evaluation = ImageBatches(evaluated, EvaluationView(backbone.data_config), recipe.batch_size, workers)
    steps = math.ceil(len(images) / recipe.batch_size)
    trainer = JointTrainer(backbone, recipe, spec.stop_gradient, seed, steps)

    state = SavedState(job)
    saved = state.read()
    if saved is not None:
        trainer.load_state(saved["trainer"])
        training.skipped = saved["skipped"]
    curve: list[Record] = saved["curve"] if saved is not None else []
    label = f"joint training of {spec.backbone}, seed {seed}, {'with' if spec.stop_gradient else 'no'} stopgrad"
    total, done = len(images) * recipe.epochs, len(images) * max(len(curve) - 1, 0)
    with Progress(total, "images", label, done) as progress:
        for epoch in range(len(curve), recipe.epochs + 1):
            losses: Record = {"train_task_loss": None, "train_head_loss": None}
            if epoch > 0:
                losses |= trainer.train_epoch(epoch - 1, training.shuffled(seed, epoch - 1), progress.advance)
            curve.append({"epoch": epoch, **losses, **evaluate(trainer.predict, backbone.dim, evaluation)})
            if epoch < recipe.epochs:
                state.write({"trainer": trainer.state(), "curve": curve, "skipped": dict(training.skipped)})

    with job.writing() as draft:
        (draft.path / CURVE).write_text("".join(json.dumps(record) + "\n" for record in curve), encoding="utf-8")
        skipped = sorted((training.skipped | evaluation.skipped).items())
        draft.facts.update(
            recipe=recipe.model_dump(mode="json"),
            train_images=len(images) - len(training.skipped),
            eval_images=len(evaluated) - len(evaluation.skipped),
            skipped=[{"sample_id": sample_id, "error": error} for sample_id, error in skipped],
            network_xxh3_128=_weights_digest(backbone),
            software=artefacts.software_versions("torch", "timm"),
        )
    state.remove()


def _check_classes(name: str, backbone: Backbone, images: ImageDataset) -> None:
    if backbone.num_classes != len(images.classes):
        raise PipelineError(
            f"backbone '{name}' classifies {backbone.num_classes} classes, but the upstream dataset "
            f"'{images.name}' has {len(images.classes)}; choose a backbone trained on it, or another upstream"
        )


def _weights_digest(backbone: Backbone) -> str:
    """Return a checksum of all weights of backbone and classifier: equal training gives equal checksums."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(backbone.encoder.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
