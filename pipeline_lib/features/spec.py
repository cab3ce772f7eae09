"""The specs of blocks and caches: what decides the rows of a view, and how they are cut and stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline_lib.config.features import Device, Precision
from pipeline_lib.config.views import ViewSpec, view_spec
from pipeline_lib.core.spec import Spec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

Range = tuple[int, int]


class RowsSpec(Spec):
    """What decides the rows of a view, whatever blocks they lie in.

    with_task_loss: whether labels are upstream classes, which the classifier may know. loss_over: the outputs of the
    classifier that task loss and entropy are of; None = all. dtype: of the stored representations. precision: in
    which the backbone computes.
    """

    backbone: str
    dataset: str
    split: str
    view: ViewSpec
    with_task_loss: bool
    loss_over: Literal["classes"] | None = None
    dtype: Literal["float16", "float32"]
    precision: Precision
    device: Device
    batch_size: int
    threads: int


class BlockSpec(RowsSpec):
    """A block: half-open ranges of samples and epochs, and how they are stored.

    needs_task_loss: whether heads learn from the classifier's, so that a classifier that doesn't fit is an error.
    """

    format: Literal["zarr", "hdf5"]
    chunk_rows: int
    samples: Range
    epochs: Range
    needs_task_loss: bool = Field(False, exclude=True)

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
            needs_task_loss=backbone in config.classifiers_to_learn_from,
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
        "loss_over": None if config.upstream.loss_over == "all" else config.upstream.loss_over,
        "dtype": features.dtype,
        "precision": features.precision,
        "device": features.device,
        "batch_size": features.batch_size,
        "threads": features.threads,
    }
