"""The spec of a head: what it learns from, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.config.training import Training
from pipeline_lib.core.spec import Spec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config


class HeadSpec(Spec):
    """One head of a variant; dataset, split and view are those of the upstream training images."""

    backbone: str
    variant: str
    seed: int
    dataset: str
    split: str
    view: str
    training: Training

    @classmethod
    def of(cls, config: Config, backbone: str, variant: str, seed: str) -> HeadSpec:
        """Return the spec of a job."""
        task_loss = config.task_loss_of(backbone, variant)
        return cls(
            backbone=backbone,
            variant=variant,
            seed=int(seed),
            dataset=config.upstream.dataset,
            split=config.upstream.train_split,
            view=config.variant(variant).view,
            training=config.training_of(variant).model_copy(update={"task_loss": task_loss}),
        )
