"""Find each image's exact nearest neighbour by cosine similarity among the other images of its split.

With the upstream evaluation images at hand also in a mix of equally many of both sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline_lib.config.evaluation import Mix, Neighbours
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.core.spec import Spec as BaseSpec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (
    Input("features", "the eval view's cache of the split"),
    Input("upstream_features", "that of the upstream evaluation split, to mix with (any other set)", required=False),
)
OUTPUT = "neighbours/{backbone}/{dataset}/{split}"


class Spec(BaseSpec):
    """Which set, how it is mixed with the upstream set (None: it is that), and how the search is done.

    The search is exact, so how it is done is no part of what decides the result.
    """

    backbone: str
    dataset: str
    split: str
    mix: Mix | None = None
    search: Neighbours = Field(Neighbours(), exclude=True)

    @classmethod
    def of(cls, config: Config, backbone: str, dataset: str, split: str) -> Spec:
        """Return the spec of a job."""
        mix = None if config.is_upstream_set(dataset, split) else config.evaluation.mix
        return cls(backbone=backbone, dataset=dataset, split=split, search=config.evaluation.neighbours, mix=mix)


def inputs(config: Config, backbone: str, dataset: str, split: str) -> Refs:
    """Return the artefacts that a job reads."""
    cache = Ref.to("cache", backbone=backbone, dataset=dataset, split=split, view="eval")
    upstream = config.upstream
    upstream_cache = Ref.to(
        "cache", backbone=backbone, dataset=upstream.dataset, split=upstream.eval_split, view="eval"
    )
    return {
        "features": cache,
        "upstream_features": None if config.is_upstream_set(dataset, split) else upstream_cache,
    }


def check_images(config: Config, images: int, classes: int, backbone: str, dataset: str, split: str) -> None:
    """Raise `PipelineError` where there is no other image to be a neighbour."""
    if images < 2:
        raise PipelineError(
            f"'{dataset}/{split}' has {images} image, but nearest neighbours need at least 2; add images, or take the "
            "set out of 'downstream'"
        )


def run(job: Job[Spec]) -> None:
    """Search and write."""
    import torch

    from pipeline_lib.core.progress import Progress
    from pipeline_lib.features.cache import FeatureCache, naming_images
    from pipeline_lib.retrieval.mixed import mixed_neighbours, mixed_rows
    from pipeline_lib.retrieval.search import nearest_neighbours
    from pipeline_lib.retrieval.store import write_neighbours

    spec, features = job.spec, job.input("features").parent
    torch.set_num_threads(spec.search.threads)
    cache = FeatureCache(features)
    title = f"neighbours of {spec.backbone} on {spec.dataset}"
    with naming_images(features), Progress(cache.rows, "images", title) as progress:
        found = nearest_neighbours(
            lambda start, stop: cache.read("embedding", 0, start, stop),
            cache.rows,
            spec.search,
            progress.advance,
        )
    mixed = None
    upstream_features = job.optional_input("upstream_features")
    if upstream_features is not None and spec.mix is not None:
        upstream = FeatureCache(upstream_features.parent)
        rows = mixed_rows(upstream.rows, cache.rows, spec.mix.images)
        with Progress(rows, "images", f"{title} mixed with upstream") as progress:
            mixed = mixed_neighbours(upstream, cache, spec.mix, spec.search, progress.advance)
    write_neighbours(job, found, cache, mixed)
