"""Train a method of the URL benchmark from images: writes a backbone artefact with an uncertainty of its own.

After a kill it goes on with the last epoch, whose state lies in <output>.resume while it trains. Where there are
several GPUs, torchrun starts a process for each, and each trains on its part of every batch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.backbones import method
from pipeline_lib.backbones.spec import BackboneSpec, components
from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.stages.described import FOLDER, description

if TYPE_CHECKING:
    import torch

    from pipeline_lib.config.config import Config
    from pipeline_lib.training.curves import CurveSinks

INPUTS = (Input("dataset", "upstream dataset artefact"),)
OUTPUT = "backbones/{backbone}"
SETTINGS = ("workers", "processes", "curves")


class Spec(BackboneSpec):
    """The model: an architecture, its method and the recipe; the splits to train and to choose the best epoch on."""

    options: method.Options
    train_split: str
    eval_split: str


def inputs(config: Config, backbone: str) -> Refs:
    """Return the artefacts that a job reads."""
    return {"dataset": Ref.to("dataset", dataset=config.upstream.dataset)}


def plugins(config: Config, backbone: str) -> list[str]:
    """Return the components of the code that are chosen by name."""
    dataset = f"datasets.{config.datasets[config.upstream.dataset].kind}"
    return [*components(config.backbone(backbone)), dataset]


def sources(spec: Spec) -> list[Path]:
    """Return the user's files that the model is made from."""
    return method.watched_files(spec.options)


def run(job: Job[Spec]) -> None:
    """Train and write; with several processes each trains on its part of every batch, and one evaluates and writes."""
    import torch

    from pipeline_lib.core.device import choose_device
    from pipeline_lib.training.curves import CurveSinks
    from pipeline_lib.training.processes import process_group, process_number, run_in_processes, started_by_torchrun

    processes = 1 if started_by_torchrun() else _processes(job)
    if processes > 1:
        with tempfile.TemporaryDirectory() as folder:
            settings = ["--workers", str(job.settings.workers)]
            settings += ["--curves", *job.settings.curves] if job.settings.curves else []
            run_in_processes(["method", "--job", str(_described(job, Path(folder))), *settings], processes)
        return
    recipe = job.spec.options.training
    torch.set_num_threads(recipe.threads)
    device = choose_device(recipe.device)
    with process_group(device), CurveSinks(job.settings.curves if process_number() == 0 else (), job) as sinks:
        _train(job, device, sinks)


def _train(job: Job[Spec], device: torch.device, sinks: CurveSinks) -> None:
    """Train and write.

    The first line of the curve, epoch 0, is the model before training. The epoch of training that is best by
    `training.selection` on the evaluation split is kept (the first of equals); where the metric is never defined, the
    last one. A learning rate of 0 only evaluates: the model is kept as it starts.
    """
    import functools
    import math

    from pipeline_lib.backbones.artefact import write_weights
    from pipeline_lib.backbones.base import MethodEncoder
    from pipeline_lib.datasets.images import ImageDataset
    from pipeline_lib.datasets.plain_views import AugmentedView, EvaluationView, View
    from pipeline_lib.evaluation.while_training import evaluate
    from pipeline_lib.training.images import ImageBatches, Normalise, skipped_images
    from pipeline_lib.training.method import MethodTask, TwoCrops, best_epoch, method_trainer
    from pipeline_lib.training.processes import process_count, process_number
    from pipeline_lib.training.state import SavedState
    from pipeline_lib.training.trainer import train

    spec, options, recipe = job.spec, job.spec.options, job.spec.options.training
    images, evaluated = (ImageDataset(job.input("dataset"), split) for split in (spec.train_split, spec.eval_split))
    model = method.create(options, len(images.classes), pretrained=True)
    encoder = MethodEncoder(model)
    config = method.data_config(options, encoder)
    view: View = AugmentedView(recipe, options.seed, config)
    view = TwoCrops(view) if model.two_crops else view
    number, processes = process_number(), process_count()
    workers = math.ceil(job.settings.workers / processes)
    batches = ImageBatches(images, view, recipe.batch_size, workers, number, processes)
    held_out = ImageBatches(evaluated, EvaluationView(config), recipe.batch_size, workers)
    task = MethodTask(model, recipe, Normalise(config, device))
    saved = SavedState(job)
    curve = train(
        method_trainer(task, recipe, options.seed, len(images), f"training {spec.name}"),
        batches,
        recipe.epochs if recipe.learning_rate > 0 else 0,
        saved,
        functools.partial(evaluate, dim=model.dim, batches=held_out),
        sinks.write,
    )
    if number > 0:
        return
    model.cpu().load_state_dict(task.best)
    write_weights(
        job,
        encoder,
        config,
        curve,
        kept_epoch=best_epoch(curve, recipe.selection),
        processes=processes,
        skipped=skipped_images(batches, held_out),
    )
    saved.remove()


def _described(job: Job[Spec], folder: Path) -> Path:
    """Write the file that describes the job to the processes that do it together; returns its path."""
    file = folder / FOLDER / "job.json"
    file.parent.mkdir()
    content = {"stage": job.stage, "spec": job.spec.plain(), "code": dict(job.code), "targets": []}
    paths = {name: [str(path.resolve()) for path in paths] for name, paths in job.inputs.items()}
    content |= {"inputs": paths, "output": str(job.output.resolve())}
    file.write_text(description(content, "stale", run=None), encoding="utf-8")
    return file


def _processes(job: Job[Spec]) -> int:
    """Return how many processes are to train together: those that are asked for, or as many as there are GPUs.

    Raises `PipelineError` where they would wait for each other's GPUs for ever.
    """
    import torch

    from pipeline_lib.core.device import find_device
    from pipeline_lib.core.errors import PipelineError

    asked, device, gpus = job.settings.processes, job.spec.options.training.device, torch.cuda.device_count()
    if asked is None:
        return 0 if device == "cpu" else gpus
    if asked > max(gpus, 1) and find_device(device).type == "cuda":
        raise PipelineError(
            f"--processes {asked}: each needs a GPU of its own, but only {gpus} can be seen here; ask for no more than "
            "that (in a run: --set-resources method:gpu=N), or set training.device to cpu"
        )
    return asked
