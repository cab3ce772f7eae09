"""The specs of blocks and caches: what decides the rows of a view, and how they are cut and stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pipeline_lib.config.features import Device, Precision
from pipeline_lib.config.views import ViewSpec, view_spec
from pipeline_lib.core.spec import Spec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

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
        return cls(**_rows_of(config, backbone, dataset, split, view), epochs=config.view_epochs(view))


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
