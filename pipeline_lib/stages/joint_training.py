"""Train a classifier and an uncertainty head together from a pretrained backbone: writes curve.jsonl.

After a kill it goes on with the last epoch, whose state lies in <output>.resume while it trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.backbones.spec import components
from pipeline_lib.config.joint_training import JointOptions, JointTraining
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.core.spec import Spec as BaseSpec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (
    Input("dataset", "upstream dataset artefact"),
    Input("backbone", "backbone artefact, where training starts"),
)
OUTPUT = "joint_training/{backbone}/{mode}/seed{seed}"
SETTINGS = ("workers",)


class Spec(BaseSpec):
    """Whether the head's gradients end before the backbone, and the recipe.

    train_split, eval_split: of the upstream dataset.
    """

    backbone: str
    dataset: str
    train_split: str
    eval_split: str
    stop_gradient: bool
    seed: int
    options: JointOptions

    @classmethod
    def of(cls, config: Config, backbone: str, mode: str, seed: str) -> Spec:
        """Return the spec of a job."""
        joint, upstream = config.joint_training or JointTraining(backbone=backbone), config.upstream
        return cls(
            backbone=backbone,
            dataset=upstream.dataset,
            train_split=upstream.train_split,
            eval_split=upstream.eval_split,
            stop_gradient=mode == "stop_gradient",
            seed=int(seed),
            options=joint.options,
        )


def inputs(config: Config, backbone: str, mode: str, seed: str) -> Refs:
    """Return the artefacts that a job reads."""
    return {
        "dataset": Ref.to("dataset", dataset=config.upstream.dataset),
        "backbone": Ref.to("backbone", backbone=backbone),
    }


def plugins(config: Config, backbone: str, mode: str, seed: str) -> list[str]:
    """Return the components of the code that are chosen by name."""
    options = Spec.of(config, backbone, mode, seed).options
    dataset = f"datasets.{config.datasets[config.upstream.dataset].kind}"
    return [dataset, *components(config.backbone(backbone)), f"heads.losses.{options.loss.kind}"]


def run(job: Job[Spec]) -> None:
    """Train and write the curve.

    A line of it is the state after `epoch` epochs, from 0 = the pretrained backbone with a fresh head: the epoch's mean
    training losses (None before the first), and the metrics of the evaluation split.
    """
    import functools
    import json

    import torch

    from pipeline_lib.backbones.artefact import CURVE, open_backbone
    from pipeline_lib.core.device import choose_device
    from pipeline_lib.datasets.images import ImageDataset, outputs_of
    from pipeline_lib.datasets.plain_views import AugmentedView, EvaluationView
    from pipeline_lib.evaluation.while_training import evaluate
    from pipeline_lib.heads.loss import loss_of
    from pipeline_lib.heads.model import UncertaintyHead
    from pipeline_lib.training.images import ImageBatches, skipped_images
    from pipeline_lib.training.joint import JointTask, joint_trainer
    from pipeline_lib.training.state import SavedState
    from pipeline_lib.training.trainer import train

    spec, recipe, workers = job.spec, job.spec.options, job.settings.workers
    torch.set_num_threads(recipe.threads)
    images = ImageDataset(job.input("dataset"), spec.train_split)
    evaluated = ImageDataset(job.input("dataset"), spec.eval_split)
    backbone = open_backbone(job.input("backbone"), choose_device(recipe.device))
    known = outputs_of(images.manifest, backbone.num_classes)
    if known is None or known.tolist() != list(range(backbone.num_classes)):
        raise PipelineError(
            f"joint_training goes on with the classifier of backbone '{spec.backbone}', whose {backbone.num_classes} "
            f"outputs must be the {len(images.classes)} classes of upstream dataset '{images.name}' in their order; "
            "choose a backbone trained on it, or another upstream"
        )
    view = AugmentedView(recipe, spec.seed, backbone.data_config)
    batches = ImageBatches(images, view, recipe.batch_size, workers)
    held_out = ImageBatches(evaluated, EvaluationView(backbone.data_config), recipe.batch_size, workers)
    head = UncertaintyHead(backbone.dim, recipe.hidden, spec.seed)
    task = JointTask(backbone, head, loss_of(recipe), recipe, spec.stop_gradient)
    mode = "with" if spec.stop_gradient else "without"
    name = f"joint training of {spec.backbone}, seed {spec.seed}, {mode} stop-gradient"
    saved = SavedState(job)
    curve = train(
        joint_trainer(task, recipe, spec.seed, len(images), name),
        batches,
        recipe.epochs,
        saved,
        functools.partial(evaluate, dim=backbone.dim, batches=held_out),
    )
    with job.writing() as draft:
        (draft.path / CURVE).write_text("".join(json.dumps(record) + "\n" for record in curve), encoding="utf-8")
        draft.facts.update(
            train_images=len(images) - len(batches.skipped),
            eval_images=len(evaluated) - len(held_out.skipped),
            skipped=skipped_images(batches, held_out),
            network_xxh3_128=task.weights_digest(),
        )
    saved.remove()
