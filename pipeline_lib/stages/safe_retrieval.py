"""Measure the 1-NN error of one set without its most uncertain images, as queries and in the database."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.evaluation.spec import SafeRetrievalSpec as Spec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (
    Input("features", "the eval view's cache of the split"),
    Input("baselines", "the baselines' evaluation of the same set"),
    Input("scores", "the heads' evaluation of the same set"),
    Input("neighbours", "neighbours artefact of the split"),
)
OUTPUT = "safe_retrieval/{backbone}/{variant}/{dataset}/{split}"


def inputs(config: Config, backbone: str, variant: str, dataset: str, split: str) -> Refs:
    """Return the artefacts that a job reads."""
    images = {"backbone": backbone, "dataset": dataset, "split": split}
    return {
        "features": Ref.to("cache", view="eval", **images),
        "baselines": Ref.to("baselines", **images),
        "scores": Ref.to("evaluate_heads", variant=variant, **images),
        "neighbours": Ref.to("neighbours", **images),
    }


def check_images(
    config: Config, images: int, classes: int, backbone: str, variant: str, dataset: str, split: str
) -> None:
    """Raise `PipelineError` where the largest share that is left out leaves no two images in the database."""
    share = max(config.evaluation.safe_retrieval.shares)
    kept = images - math.floor(share * images + 1e-9)
    if kept < 2:
        raise PipelineError(
            f"'{dataset}/{split}' has {images} images, of which evaluation.safe_retrieval.shares up to {share} leave "
            f"{kept} in the database, but a neighbour needs at least 2; add images, lower the shares, or take the set "
            "out of 'downstream'"
        )


def run(job: Job[Spec]) -> None:
    """Measure and write."""
    from pipeline_lib.evaluation.safe_retrieval import evaluate_safe_retrieval
    from pipeline_lib.features.cache import FeatureCache

    evaluate_safe_retrieval(job, FeatureCache(job.input("features").parent))
