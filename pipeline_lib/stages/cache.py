"""Check that the blocks of a view are complete and belong together, and record them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.features.blocks import block_ranges, block_wildcards
from pipeline_lib.features.spec import CacheSpec as Spec
from pipeline_lib.stages import features

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (
    Input("dataset", "the dataset"),
    Input("backbone", "the backbone"),
    Input("upstream", "the upstream dataset, where the blocks were made with it", False),
    Input("blocks", "every block of the view; they lie in the folder `blocks` beside the output", many=True),
)
OUTPUT = "features/{backbone}/{dataset}/{split}/{view}/cache"


def inputs(config: Config, backbone: str, dataset: str, **view: str) -> Refs:
    """Return the artefacts that a job reads, but for the blocks."""
    return features.inputs(config, backbone, dataset)


def parts(config: Config, samples: int, backbone: str, dataset: str, split: str, view: str) -> tuple[Ref, ...]:
    """Return the blocks of a view; samples: images in the split."""
    wildcards = {"backbone": backbone, "dataset": dataset, "split": split, "view": view}
    return tuple(
        Ref.to("features", **wildcards, **block_wildcards(sample_range, epoch_range))
        for epoch_range in block_ranges(config.view_epochs(view), config.block_epochs(view))
        for sample_range in block_ranges(samples, config.features.block_samples)
    )


def plugins(config: Config, backbone: str, dataset: str, **view: str) -> list[str]:
    """Return the components whose code decides the rows: those that extract the blocks."""
    return ["stages.features", *features.plugins(config, backbone, dataset)]


def run(job: Job[Spec]) -> None:
    """Write the record."""
    from pipeline_lib.features.record import write_cache

    write_cache(job)
