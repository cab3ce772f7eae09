"""The specs of blocks and caches: what decides the rows of a view, and how they are cut and stored."""

from __future__ import annotations

from typing import Any, Literal

from pipeline_lib.config.config import Config
from pipeline_lib.config.features import Device, Precision
from pipeline_lib.config.views import ViewSpec, view_epochs, view_spec
from pipeline_lib.core.spec import Spec

Range = tuple[int, int]


class RowsSpec(Spec):
    """What decides the rows of a view, whatever blocks they lie in.

    with_task_loss: whether the labels are the classifier's. dtype: of the stored representations. precision: in which
    the backbone computes.
    """

    backbone: str
    dataset: str
    split: str
    view: ViewSpec
    with_task_loss: bool
    dtype: Literal["float16", "float32"]
    precision: Precision
    device: Device
    batch_size: int
    threads: int


class BlockSpec(RowsSpec):
    """A block: half-open ranges of samples and epochs, and how they are stored."""

    format: Literal["zarr", "hdf5"]
    chunk_rows: int
    samples: Range
    epochs: Range

    @classmethod
    def of(
        cls,
        config: Config,
        backbone: str,
        dataset: str,
        split: str,
        view: str,
        start: str,
        stop: str,
        first: str,
        last: str,
    ) -> BlockSpec:
        """Return the spec of a job."""
        return cls(
            **_rows_of(config, backbone, dataset, split, view),
            format=config.features.format,
            chunk_rows=config.features.chunk_rows,
            samples=(int(start), int(stop)),
            epochs=(int(first), int(last)),
        )


class CacheSpec(RowsSpec):
    """All rows of a view; how they are cut into blocks and stored is no part of it."""

    epochs: int

    @classmethod
    def of(cls, config: Config, backbone: str, dataset: str, split: str, view: str) -> CacheSpec:
        """Return the spec of a job."""
        epochs = view_epochs(config.features, view)
        return cls(**_rows_of(config, backbone, dataset, split, view), epochs=epochs)


def _rows_of(config: Config, backbone: str, dataset: str, split: str, view: str) -> dict[str, Any]:
    features = config.features
    return {
        "backbone": backbone,
        "dataset": dataset,
        "split": split,
        "view": view_spec(features, view),
        "with_task_loss": dataset == config.upstream.dataset and config.has_classifier(backbone),
        "dtype": features.dtype,
        "precision": features.precision,
        "device": features.device,
        "batch_size": features.batch_size,
        "threads": features.threads,
    }


def joint_views(config: Config) -> list[str]:
    """Return the views that only ablations learn from: they are extracted together, from images decoded once."""
    views = {variant.view for variant in config.variants.values()}
    return [view for view in config.ablation_views() if view not in views]


def block_epochs(config: Config, view: str) -> int:
    """Return how many epochs of a view one block holds: all of those that are few or are extracted together."""
    if view == "deteriorations" or view in joint_views(config):
        return view_epochs(config.features, view)
    return config.features.block_epochs
