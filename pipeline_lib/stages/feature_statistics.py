"""Describe the representations of a view: means, norms, zeros, NaNs, effective dimension, images per class.

Works chunk by chunk on a dask scheduler, so that the cache may be larger than memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.core.spec import Spec as BaseSpec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (Input("features", "the view's cache"),)
OUTPUT = "feature_statistics/{backbone}/{dataset}/{split}/{view}"
SETTINGS = ("scheduler",)


class Spec(BaseSpec):
    """Which view."""

    backbone: str
    dataset: str
    split: str
    view: str

    @classmethod
    def of(cls, config: Config, backbone: str, dataset: str, split: str, view: str) -> Spec:
        """Return the spec of a job."""
        return cls(backbone=backbone, dataset=dataset, split=split, view=view)


def inputs(config: Config, backbone: str, dataset: str, split: str, view: str) -> Refs:
    """Return the artefacts that a job reads."""
    return {"features": Ref.to("cache", backbone=backbone, dataset=dataset, split=split, view=view)}


def run(job: Job[Spec]) -> None:
    """Compute and write."""
    from pipeline_lib.features.statistics import write_statistics

    write_statistics(job)
