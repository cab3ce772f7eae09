"""Project representations of some classes of one set on two dimensions, by t-SNE and UMAP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.evaluation.spec import ProjectionSpec as Spec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (
    Input("dataset", "dataset artefact"),
    Input("features", "the eval view's cache of the split"),
)
OUTPUT = "projection/{backbone}/{dataset}/{split}"


def inputs(config: Config, backbone: str, dataset: str, split: str) -> Refs:
    """Return the artefacts that a job reads."""
    return {
        "dataset": Ref.to("dataset", dataset=dataset),
        "features": Ref.to("cache", backbone=backbone, dataset=dataset, split=split, view="eval"),
    }


def run(job: Job[Spec]) -> None:
    """Project and write."""
    from pipeline_lib.evaluation.projection import project
    from pipeline_lib.features.cache import FeatureCache

    project(job, FeatureCache(job.input("features").parent))
