"""Training a method as a stage: the result is a backbone artefact, and a kill costs the epoch in progress alone."""

from __future__ import annotations

import io
import math
import sys
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from pipeline_lib.backbones.artefact import write_weights
from pipeline_lib.backbones.base import MethodEncoder
from pipeline_lib.backbones.method import create, data_config
from pipeline_lib.backbones.training_images import ImageBatches
from pipeline_lib.backbones.training_state import SavedState
from pipeline_lib.core.device import choose_device
from pipeline_lib.core.jobs import Job
from pipeline_lib.core.progress import Progress
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.plain_views import AugmentedView, EvaluationView, View
from pipeline_lib.joint.evaluate import evaluate
from pipeline_lib.method_training.curves import CurveSinks
from pipeline_lib.method_training.processes import process_count, process_group, process_number, union, wait_for_all
from pipeline_lib.method_training.train import MethodTrainer

if TYPE_CHECKING:
    from pipeline_lib.stages.method import Spec

Record = dict[str, float | None]


class TwoCrops:
    """Two draws of an augmentation of each image, uint8 [2, 3, H, W]."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __call__(self, image: Image.Image, sample_id: int, epoch: int) -> tuple[Tensor, Any]:
        """Return draws 2 * epoch and 2 * epoch + 1 of the view."""
        draws = [self._view(image, sample_id, 2 * epoch + crop) for crop in range(2)]
        return torch.stack([pixels for pixels, _ in draws]), draws[0][1]


def write_method(job: Job[Spec]) -> None:
    """Train a method and write the backbone artefact; its curve has a line per epoch.

    The first line of the curve, epoch 0, is the model before training. The epoch of training that is best by
    `training.selection` on the evaluation split is kept (the first of equals); where the metric is never defined, the
    last one. A learning rate of 0 only evaluates: the model is kept as it starts.

    Of several processes that torchrun started each trains on its part of every batch; one evaluates and writes.

    Raises `PipelineError` for images that can't be decoded (more than the dataset allows), when a loss is not finite,
    and for a sink whose package is not installed.
    """
    recipe = job.spec.options.training
    torch.set_num_threads(recipe.threads)
    device = choose_device(recipe.device)
    with process_group(device):
        sinks = [name for name in job.settings.curves if name != "jsonl"] if process_number() == 0 else []
        with CurveSinks(sinks, job) as curves:
            _train(job, device, curves)


def _train(job: Job[Spec], device: torch.device, curves: CurveSinks) -> None:
    spec, options, recipe = job.spec, job.spec.options, job.spec.options.training
    is_first, processes = process_number() == 0, process_count()
    images, evaluated = (ImageDataset(job.input("dataset"), split) for split in (spec.train_split, spec.eval_split))
    model = create(options, len(images.classes), pretrained=True)
    encoder = MethodEncoder(model)
    config = data_config(options, encoder)
    augmented: View = AugmentedView(recipe, options.seed, config)
    view = TwoCrops(augmented) if model.two_crops else augmented
    workers = math.ceil(job.settings.workers / processes)
    training = ImageBatches(images, view, recipe.batch_size, workers, process_number(), processes)
    validation = ImageBatches(evaluated, EvaluationView(config), recipe.batch_size, workers)
    steps = math.ceil(len(images) / (recipe.batch_size * recipe.accumulation_steps))
    trainer = MethodTrainer(model, recipe, config, options.seed, steps, device)

    state = SavedState(job)
    saved = state.read()
    curve: list[Record] = []
    best: dict[str, Tensor] | None = None
    if saved is not None:
        curve, best, training.skipped = saved["curve"], saved["best"], saved["skipped"]
        trainer.load_state(saved["trainer"])
    wait_for_all()  # before the first process writes another state
    for record in curve:
        curves.write(record)
    epochs = recipe.epochs if recipe.learning_rate > 0 else 0
    label = f"training {spec.name}"
    done = len(images) * max(len(curve) - 1, 0)
    stream = sys.stderr if is_first else io.StringIO()
    with Progress(len(images) * epochs, "images", label, done, stream) as progress:
        for epoch in range(len(curve), epochs + 1):
            record: Record = {"epoch": epoch, "loss": None}
            if epoch > 0:
                batches = training.shuffled(options.seed, epoch - 1)
                record["loss"] = trainer.train_epoch(epoch - 1, batches, progress.advance)
                training.skip(union(training.skipped))
            if is_first:
                record |= _evaluate(trainer, validation)
            curve.append(record)
            curves.write(record)
            if not is_first:
                continue
            if best is None or _best_epoch(curve, recipe.selection) == epoch:
                best = {name: value.cpu().clone() for name, value in trainer.evaluated.state_dict().items()}
            if epoch < epochs:
                skipped = dict(training.skipped)
                state.write({"trainer": trainer.state(), "curve": curve, "best": best, "skipped": skipped})

    if not is_first:
        return
    model.cpu().load_state_dict(best)
    unreadable = sorted((training.skipped | validation.skipped).items())
    write_weights(
        job,
        encoder,
        config,
        curve,
        kept_epoch=_best_epoch(curve, recipe.selection),
        processes=processes,
        skipped=[{"sample_id": sample_id, "error": error} for sample_id, error in unreadable],
    )
    state.remove()


def _evaluate(trainer: MethodTrainer, validation: ImageBatches) -> dict[str, float | None]:
    model = trainer.evaluated.eval()

    def predict(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        prediction = model(trainer.normalise(pixels))
        return prediction.embedding, prediction.logits, prediction.uncertainty

    return evaluate(predict, model.dim, validation)


def _best_epoch(curve: list[Record], selection: str) -> int:
    """Return the trained epoch with the highest value of the metric, the first of equals; the last where none has one.

    Epoch 0, the model before training, is kept only where nothing was trained: it could be the best by far, where
    training starts from pretrained weights, and its uncertainty would be none that the method learnt.
    """
    if selection == "last":
        return len(curve) - 1
    values = [(record[selection], -record["epoch"]) for record in curve[1:] if record[selection] is not None]
    return -max(values)[1] if values else len(curve) - 1
