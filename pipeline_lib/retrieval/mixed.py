"""Nearest neighbours in a mix of equally many upstream and downstream images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipeline_lib.config.evaluation import Mix, Neighbours
from pipeline_lib.core.errors import ArtefactError, NotFiniteError, PipelineError
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.retrieval.cosine import ReadRows
from pipeline_lib.retrieval.search import nearest_neighbours
from pipeline_lib.retrieval.store import MixedTable

_PIECE_ROWS = 8192


def mixed_neighbours(
    upstream: FeatureCache,
    downstream: FeatureCache,
    mix: Mix,
    search: Neighbours,
    progress: Callable[[int], None] | None = None,
) -> MixedTable:
    """Find each image's nearest other image in the mix; one of the other set is always a wrong neighbour.

    Parameters
    ----------
    upstream, downstream
        Representations of one backbone.
    mix
        How many images of each set at most, and the seed that chooses them.
    search, progress
        As in `nearest_neighbours`.

    Raises
    ------
    ArtefactError
        When the representations are those of different backbones.
    """
    if upstream.manifest.facts["backbone"] != downstream.manifest.facts["backbone"]:
        raise ArtefactError(
            f"{upstream.view_dir} and {downstream.view_dir}: hold representations of different backbones; "
            "delete the older one and run snakemake again"
        )
    caches = (upstream, downstream)
    chosen = choose_mix(upstream.rows, downstream.rows, mix.images, mix.seed)
    try:
        found = nearest_neighbours(
            concatenation(caches, chosen),
            mixed_rows(upstream.rows, downstream.rows, mix.images),
            search,
            progress,
        )
    except NotFiniteError as error:
        cache = upstream if error.row < len(chosen[0]) else downstream
        raise PipelineError(f"{cache.image_of(np.concatenate(chosen)[error.row])}: {error}") from None
    sample_id, label = (
        np.concatenate([cache.read_all(name)[rows] for cache, rows in zip(caches, chosen, strict=True)])
        for name in ("sample_id", "label")
    )
    is_upstream = np.arange(len(label)) < len(chosen[0])
    is_correct = (label[found.index] == label) & (is_upstream[found.index] == is_upstream)
    return MixedTable(is_upstream, sample_id, found.index, is_correct)


def mixed_rows(upstream_rows: int, downstream_rows: int, images: int) -> int:
    """Return how many images the mix has."""
    return 2 * min(upstream_rows, downstream_rows, images)


def choose_mix(upstream_rows: int, downstream_rows: int, images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of both sets that are in the mix, ascending, int64 [k] each, k = min(rows of either, images).

    A set that has more is sampled without replacement by `seed`.
    """
    size = mixed_rows(upstream_rows, downstream_rows, images) // 2
    return _sample(upstream_rows, size, seed), _sample(downstream_rows, size, seed)


def concatenation(caches: Sequence[FeatureCache], chosen: Sequence[np.ndarray]) -> ReadRows:
    """Return `read(start, stop)` over the chosen rows of the first cache, followed by those of the next.

    chosen: ascending rows of each cache, int64. What lies between two chosen rows is read and dropped, at most
    `_PIECE_ROWS` rows at a time, so that memory doesn't grow with a cache.
    """
    ends = np.cumsum([len(rows) for rows in chosen])

    def read(start: int, stop: int) -> np.ndarray:
        parts = []
        for cache, rows, end in zip(caches, chosen, ends, strict=True):
            first = end - len(rows)
            parts += _read_chosen(cache, rows[max(start - first, 0) : max(stop - first, 0)])
        return np.concatenate(parts)

    return read


def _read_chosen(cache: FeatureCache, rows: np.ndarray) -> list[np.ndarray]:
    parts = []
    while len(rows):
        low = int(rows[0])
        here, rows = np.split(rows, [np.searchsorted(rows, low + _PIECE_ROWS)])
        parts.append(cache.read("embedding", 0, low, int(here[-1]) + 1)[here - low])
    return parts


def _sample(rows: int, size: int, seed: int) -> np.ndarray:
    if rows == size:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, size, replace=False))
