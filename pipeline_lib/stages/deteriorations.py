"""Evaluate the heads of one variant, all seeds, on deteriorated images of one set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.evaluation.spec import DeteriorationsSpec as Spec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (
    Input("features", "the deteriorations view's cache of the split, whose epochs are the draws"),
    Input("scores", "the heads' evaluation of the clean images of the same set"),
    Input("heads", "the head of each seed, in the order of the spec's seeds", many=True),
)
OUTPUT = "deteriorations/{backbone}/{variant}/{dataset}/{split}"


def inputs(config: Config, backbone: str, variant: str, dataset: str, split: str) -> Refs:
    """Return the artefacts that a job reads."""
    images = {"backbone": backbone, "dataset": dataset, "split": split}
    return {
        "features": Ref.to("cache", view="deteriorations", **images),
        "scores": Ref.to("evaluate_heads", variant=variant, **images),
        "heads": [Ref.to("head", backbone=backbone, variant=variant, seed=seed) for seed in config.seeds],
    }


def run(job: Job[Spec]) -> None:
    """Evaluate and write."""
    from pipeline_lib.evaluation.deteriorations import evaluate_deteriorations
    from pipeline_lib.features.cache import FeatureCache

    evaluate_deteriorations(job, FeatureCache(job.input("features").parent))
