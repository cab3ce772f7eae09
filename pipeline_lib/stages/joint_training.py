"""Train a classifier and an uncertainty head together from a pretrained backbone: writes curve.jsonl.

After a kill it goes on with the last epoch, whose state lies in <output>.resume while it trains.
"""

from __future__ import annotations

from pipeline_lib.backbones.spec import components
from pipeline_lib.config.config import Config
from pipeline_lib.config.joint_training import JointOptions, JointTraining
from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.core.spec import Spec as BaseSpec

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
    dataset = f"datasets.{config.datasets[config.upstream.dataset].kind}"
    return [dataset, *components(config.backbone(backbone))]


def run(job: Job[Spec]) -> None:
    """Train and write the curve."""
    from pipeline_lib.joint.artefact import write_joint_training

    write_joint_training(job)
