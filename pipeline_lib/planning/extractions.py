"""The extractions of a config: what is decoded, drawn and written before anything else can be computed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline_lib.config.features import EVALUATION_VIEWS
from pipeline_lib.core.jobs import Ref
from pipeline_lib.features.blocks import block_ranges
from pipeline_lib.planning.split_sizes import SplitSize

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

_CACHE = ("backbone", "dataset", "split", "view")


@dataclass(frozen=True)
class Extraction:
    """The jobs of one rule that extract views of one split by one backbone; each decodes its images once.

    Attributes
    ----------
    rule : str
        The workflow's name.
    backbone, dataset, split : str
        What is extracted.
    views : tuple of str
        The views that a job extracts together.
    images : int
        Of the split.
    samples : tuple of int
        The images of each range that is one job.
    epochs : mapping from str to tuple of int
        By view, the epochs of each range that is one job.
    """

    rule: str
    backbone: str
    dataset: str
    split: str
    views: tuple[str, ...]
    images: int
    samples: tuple[int, ...]
    epochs: Mapping[str, tuple[int, ...]]

    @property
    def jobs(self) -> int:
        """How many jobs there are."""
        return len(self.samples) * len(self.epochs[self.views[0]])

    @property
    def decoded(self) -> int:
        """How many images are decoded: one for each range of epochs."""
        return self.images * len(self.epochs[self.views[0]])

    def draws(self, view: str) -> int:
        """How many images of a view the backbone sees."""
        return self.images * sum(self.epochs[view])


def extractions(config: Config, caches: Iterable[Ref], sizes: Mapping[tuple[str, str], SplitSize]) -> list[Extraction]:
    """Return the extractions behind some caches; those of splits of unknown size are left out.

    Views that the workflow extracts together (see workflow/rules/features.smk) are one extraction.
    """
    together = {"evaluation_features": EVALUATION_VIEWS, "ablation_features": tuple(config.joint_views)}
    found: dict[tuple[str, str, str, str, tuple[str, ...]], None] = {}
    for cache in caches:
        backbone, dataset, split, view = (dict(cache.wildcards)[name] for name in _CACHE)
        rule, views = next(
            ((rule, views) for rule, views in together.items() if view in views), ("training_features", (view,))
        )
        found[rule, backbone, dataset, split, views] = None
    return [
        _extraction(config, *extraction, images)
        for extraction in found
        if (images := sizes[extraction[2], extraction[3]].images) is not None
    ]


def _extraction(
    config: Config, rule: str, backbone: str, dataset: str, split: str, views: tuple[str, ...], images: int
) -> Extraction:
    def lengths(total: int, size: int) -> tuple[int, ...]:
        return tuple(stop - start for start, stop in block_ranges(total, size))

    epochs = {view: lengths(config.view_epochs(view), config.block_epochs(view)) for view in views}
    samples = lengths(images, config.features.block_samples)
    return Extraction(rule, backbone, dataset, split, views, images, samples, epochs)


def block_bytes(config: Config, extraction: Extraction, dim: int, extras: Mapping[str, int]) -> int:
    """Return the bytes that the blocks of an extraction take on the disk.

    Whole chunks are written, also where a block ends within one. What a block says of itself is not counted: some
    kilobytes, which matter for blocks of less than a thousand images alone.

    Parameters
    ----------
    config : Config
        How features are stored.
    extraction : Extraction
        The blocks.
    dim : int
        Length of a representation.
    extras : mapping from str to int
        How many float32 values each view adds to a draw.
    """
    width = dim * {"float16": 2, "float32": 4}[config.features.dtype]
    scalars = 4 + (8 if extraction.dataset == config.upstream.dataset else 0)
    total = 0
    for images in extraction.samples:
        chunk = min(config.features.chunk_rows, images)
        stored = math.ceil(images / chunk) * chunk
        for view in extraction.views:
            per_draw = width + scalars + 4 * extras[view]
            for epochs in extraction.epochs[view]:
                total += epochs * stored * per_draw + images * 16 + epochs * 8
    return total
