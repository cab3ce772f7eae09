"""Load or train a backbone: writes weights.safetensors and manifest.json.

After a kill a training goes on with the last epoch, whose state lies in <output>.resume while it trains.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pipeline_lib.backbones.spec import BackboneSpec, components, is_trained_here, made_by
from pipeline_lib.config import kinds
from pipeline_lib.config.training_from_images import ClassifierTraining
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Input, Job, Ref, Refs

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (Input("upstream", "dataset artefact to train on (kind `trained`)", required=False),)
OUTPUT = "backbones/{backbone}"
SETTINGS = ("workers",)
Spec = BackboneSpec
# Imported by its name: it is code of the backbones that are trained, and of no others.
TRAINER = "training.classifier"


def resolve(config: Config, backbone: str) -> Ref:
    """Return the stage that makes the backbone: this one, or `method`."""
    return Ref.to(made_by(config, backbone), backbone=backbone)


def inputs(config: Config, backbone: str) -> Refs:
    """Return the artefacts that a job reads."""
    upstream = Ref.to("dataset", dataset=config.upstream.dataset)
    return {"upstream": upstream if is_trained_here(config, backbone) else None}


def plugins(config: Config, backbone: str) -> list[str]:
    """Return the components of the code that are chosen by name."""
    dataset = f"datasets.{config.datasets[config.upstream.dataset].kind}"
    return components(config.backbone(backbone)) + ([TRAINER, dataset] if is_trained_here(config, backbone) else [])


def sources(spec: BackboneSpec) -> list[Path]:
    """Return the user's files that the backbone is made from."""
    return kinds.load("backbones", spec.options.kind).watched_files(spec.options)


def run(job: Job[BackboneSpec]) -> None:
    """Load or train, and write."""
    from pipeline_lib.backbones.artefact import write_weights

    options = job.spec.options
    kind = kinds.load("backbones", options.kind)
    if isinstance(options, ClassifierTraining):
        _train(job, options, kind)
    elif hasattr(kind, "prepare"):
        encoder = kind.prepare(options)
        write_weights(job, encoder, kind.data_config(options, encoder))
    else:
        raise PipelineError(f"backbone '{job.spec.name}' is of kind '{options.kind}', which a stage of that name makes")


def _train(job: Job[BackboneSpec], options: ClassifierTraining, kind: ModuleType) -> None:
    import torch

    from pipeline_lib.backbones.artefact import write_weights
    from pipeline_lib.datasets.images import ImageDataset

    if job.spec.train_split is None:
        raise PipelineError(f"backbone '{job.spec.name}' is trained, so its spec needs a train_split")
    training = importlib.import_module(f"pipeline_lib.{TRAINER}")
    images, saved = ImageDataset(job.input("upstream"), job.spec.train_split), training.SavedState(job)
    torch.manual_seed(options.seed)
    encoder = kind.build(options, len(images.classes))
    data_config = kind.data_config(options, encoder)
    name, workers = f"training {job.spec.name}", job.settings.workers
    curve = training.train_classifier(encoder.network, images, options, data_config, saved, name, workers)
    write_weights(job, encoder, data_config, curve)
    saved.remove()
