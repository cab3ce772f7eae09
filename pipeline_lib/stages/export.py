"""Write a checkpoint to take home: model.safetensors, config.json and a model card (README.md).

from pipeline_lib.pretrained import load
representation, uncertainty = load(FOLDER)(images)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.backbones.spec import made_by
from pipeline_lib.config.sets import Downstream
from pipeline_lib.config.task_losses import CROSS_ENTROPY
from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.core.spec import Spec as BaseSpec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (
    Input("backbone", "the backbone"),
    Input("heads", "the variant's head of each seed, in the order of the spec's seeds", many=True),
    Input("upstream", "the heads' evaluation of the upstream set"),
    Input("metrics", "metrics.csv, for the card"),
)
OUTPUT = "checkpoints/{backbone}/{variant}"


class Spec(BaseSpec):
    """Whose heads go into the checkpoint, with or without their backbone, and which sets the card's table lists.

    The upstream evaluation set is the first of `sets`.
    """

    backbone: str
    variant: str
    seeds: tuple[int, ...]
    include_backbone: bool
    sets: tuple[Downstream, ...]

    @classmethod
    def of(cls, config: Config, backbone: str, variant: str) -> Spec:
        """Return the spec of a job."""
        return cls(
            backbone=backbone,
            variant=variant,
            seeds=config.seeds,
            include_backbone=config.export.backbone,
            sets=tuple(config.evaluation_sets),
        )


def inputs(config: Config, backbone: str, variant: str) -> Refs:
    """Return the artefacts that a job reads."""
    model = {"backbone": backbone, "variant": variant}
    upstream = config.upstream
    return {
        "backbone": Ref.to(made_by(config, backbone), backbone=backbone),
        "heads": [Ref.to("head", **model, seed=seed) for seed in config.seeds],
        "upstream": Ref.to("evaluate_heads", **model, dataset=upstream.dataset, split=upstream.eval_split),
        "metrics": Ref.to("metrics"),
    }


def plugins(config: Config, backbone: str, variant: str) -> list[str]:
    """Return the component that says in the card what the heads learnt from."""
    task_loss = config.task_loss_of(backbone, variant)
    return [] if task_loss == CROSS_ENTROPY else [f"task_losses.{task_loss}"]


def run(job: Job[Spec]) -> None:
    """Read the artefacts and write the checkpoint."""
    from pipeline_lib.checkpoints.card import model_card
    from pipeline_lib.checkpoints.checkpoint import write_checkpoint
    from pipeline_lib.checkpoints.export import exported_backbone, exported_heads
    from pipeline_lib.tables.summary import EvaluationSet, read_metrics

    spec = job.spec
    sets = [EvaluationSet(entry.dataset, entry.split) for entry in spec.sets]
    heads_of_seeds = dict(zip(spec.seeds, job.all_inputs("heads"), strict=True))
    backbone, arrays = exported_backbone(spec.backbone, job.input("backbone"), spec.include_backbone)
    heads, head_arrays = exported_heads(spec.backbone, spec.variant, heads_of_seeds, job.input("upstream"), sets[0])
    card = model_card(backbone, heads, read_metrics(job.input("metrics")), sets)
    with job.writing() as draft:
        write_checkpoint(draft.path, backbone, heads, arrays | head_arrays, card)
