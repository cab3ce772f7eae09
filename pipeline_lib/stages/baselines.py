"""Evaluate one set without any head: Recall@1, accuracy, and uncertainties that need none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.evaluation.spec import BaselinesSpec as Spec
from pipeline_lib.metrics.found import components

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (
    Input("dataset", "dataset artefact"),
    Input("features", "the eval view's cache of the split"),
    Input("centre_crop", "the centre_crop view's cache of the split"),
    Input("neighbours", "neighbours artefact of the split"),
    Input("upstream", "the baselines' evaluation of the upstream set (for any other set)", required=False),
)
OUTPUT = "evaluation/{backbone}/baselines/{dataset}/{split}"


def inputs(config: Config, backbone: str, dataset: str, split: str) -> Refs:
    """Return the artefacts that a job reads."""
    images = {"backbone": backbone, "dataset": dataset, "split": split}
    upstream = config.upstream
    return {
        "dataset": Ref.to("dataset", dataset=dataset),
        "features": Ref.to("cache", view="eval", **images),
        "centre_crop": Ref.to("cache", view="centre_crop", **images),
        "neighbours": Ref.to("neighbours", **images),
        "upstream": None
        if config.is_upstream_set(dataset, split)
        else Ref.to("baselines", backbone=backbone, dataset=upstream.dataset, split=upstream.eval_split),
    }


def plugins(config: Config, **wildcards: str) -> list[str]:
    """Return the components that are chosen by name: all metrics."""
    return components()


def run(job: Job[Spec]) -> None:
    """Evaluate and write."""
    from pipeline_lib.evaluation.baselines import evaluate_baselines
    from pipeline_lib.features.cache import FeatureCache

    evaluate_baselines(job, FeatureCache(job.input("features").parent), FeatureCache(job.input("centre_crop").parent))
