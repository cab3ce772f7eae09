"""Evaluate the heads of one variant, all seeds, on one set.

Ablations are not evaluated on the upstream set, so what needs it (OOD detection, the mix) is left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.evaluation.spec import HeadsSpec as Spec
from pipeline_lib.evaluation.spec import wanted_ablations as wanted_ablations
from pipeline_lib.metrics.found import components

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (
    Input("features", "the eval view's cache of the split"),
    Input("centre_crop", "the centre_crop view's cache of the split"),
    Input("baselines", "the baselines' evaluation of the same set"),
    Input("heads", "the head of each seed, in the order of the spec's seeds", many=True),
    Input("upstream", "the heads' evaluation of the upstream set (for any other set)", required=False),
    Input("neighbours", "neighbours artefact of the same set, for its mix with upstream", required=False),
)
OUTPUT = "evaluation/{backbone}/heads/{variant}/{dataset}/{split}"


def inputs(config: Config, backbone: str, variant: str, dataset: str, split: str) -> Refs:
    """Return the artefacts that a job reads."""
    images = {"backbone": backbone, "dataset": dataset, "split": split}
    refs: dict[str, Ref | Sequence[Ref] | None] = {
        "features": Ref.to("cache", view="eval", **images),
        "centre_crop": Ref.to("cache", view="centre_crop", **images),
        "baselines": Ref.to("baselines", **images),
        "heads": [Ref.to("head", backbone=backbone, variant=variant, seed=seed) for seed in config.seeds],
    }
    if variant in config.variants and not config.is_upstream_set(dataset, split):
        of_upstream = {"dataset": config.upstream.dataset, "split": config.upstream.eval_split}
        refs["upstream"] = Ref.to("evaluate_heads", backbone=backbone, variant=variant, **of_upstream)
        refs["neighbours"] = Ref.to("neighbours", **images)
    return refs


def plugins(config: Config, **wildcards: str) -> list[str]:
    """Return the components that are chosen by name: all metrics."""
    return components("metrics")


def together(spec: Spec) -> Hashable:
    """Return what jobs have in common that one process does: the images."""
    return spec.backbone, spec.dataset, spec.split


def run(job: Job[Spec]) -> None:
    """Evaluate and write."""
    run_together([job])


def run_together(jobs: Sequence[Job[Spec]]) -> None:
    """Evaluate several variants on one set; its features are opened and verified once."""
    from pipeline_lib.evaluation.heads import evaluate_heads
    from pipeline_lib.features.cache import FeatureCache

    first = jobs[0]
    eval_cache, crop_cache = (FeatureCache(first.input(view).parent) for view in ("features", "centre_crop"))
    for job in jobs:
        evaluate_heads(job, eval_cache, crop_cache)
