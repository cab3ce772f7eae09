"""Statistics of a cache, chunk by chunk: what the representations of a view look like, whatever its size.

Each chunk becomes a `Sums`, and these are added in the order of the rows: the same numbers in the same order on every
scheduler, however the cache is stored. Memory is that of some chunks and of a few `Sums`, [dim, dim] each, however
many rows there are.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from dask.delayed import delayed

from pipeline_lib.core.artefacts import canonical_json
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Job
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.features.dask_cache import Chunk, Scheduler, chunks, computing

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
# Norms are counted in bins of equal relative width: a float32 without its last 15 bits, 8 of the fraction remaining.
_DROPPED_BITS = 15
NORM_RELATIVE_ERROR = 2.0**-9
_PIECE_ROWS = 2048


@dataclass(frozen=True)
class Sums:
    """What is known of some rows; `finite` counts the rows without NaN or infinity, which alone enter the sums.

    total: float64 [dim], the sum of the rows. products: float64 [dim, dim], the sum of their outer products.
    zeros: int64 [dim]. norm_bins: int64 [2^16], how many Euclidean norms fall into each bin.
    """

    rows: int
    finite: int
    nans: int
    infinities: int
    total: np.ndarray
    products: np.ndarray
    zeros: np.ndarray
    norm_bins: np.ndarray

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def sums_of(embedding: np.ndarray) -> Sums:
    """Return the sums of one chunk, embedding [n, dim] of any float type."""
    dim = embedding.shape[1]
    total, products = np.zeros(dim), np.zeros((dim, dim))
    zeros, bins = np.zeros(dim, np.int64), np.zeros(1 << (31 - _DROPPED_BITS), np.int64)
    finite = nans = infinities = 0
    for start in range(0, len(embedding), _PIECE_ROWS):
        piece = embedding[start : start + _PIECE_ROWS].astype(np.float64)
        nans += int(np.isnan(piece).sum())
        infinities += int(np.isinf(piece).sum())
        zeros += (piece == 0).sum(axis=0)
        kept = piece[np.isfinite(piece).all(axis=1)]
        finite += len(kept)
        total += kept.sum(axis=0)
        products += kept.T @ kept
        norms = np.linalg.norm(kept, axis=1).astype(np.float32)
        bins += np.bincount(norms.view(np.uint32) >> _DROPPED_BITS, minlength=len(bins))
    return Sums(len(embedding), finite, nans, infinities, total, products, zeros, bins)


def norm_quantiles(bins: np.ndarray) -> dict[str, float]:
    """Return the quantiles of the norms, each to within a relative error of `NORM_RELATIVE_ERROR`.

    A quantile q is the norm at rank ceil(q n) (at least 1), reported as the middle of its bin.
    """
    cumulative = bins.cumsum()
    found = {}
    for share in QUANTILES:
        rank = max(1, int(np.ceil(share * cumulative[-1])))
        position = np.uint32(np.searchsorted(cumulative, rank))
        edges = (np.array([position, position + 1], np.uint32) << _DROPPED_BITS).view(np.float32)
        found[f"{share:g}"] = float(edges.astype(np.float64).mean()) if position else 0.0
    return found


def effective_dimensions(eigenvalues: np.ndarray) -> dict[str, float]:
    """Return two effective dimensions of a covariance with these eigenvalues [dim], of which none is negative.

    participation_ratio = (sum_i l_i)^2 / sum_i l_i^2, and entropy = exp(-sum_i p_i ln p_i) with p_i = l_i / sum_j l_j
    (Roy and Vetterli, 2007). Both are dim for equal eigenvalues and 1 where all but one are 0; 0 without any variance.
    """
    share = eigenvalues / eigenvalues.sum() if eigenvalues.sum() > 0 else np.zeros_like(eigenvalues)
    positive = share[share > 0]
    if not len(positive):
        return {"participation_ratio": 0.0, "entropy": 0.0}
    entropy = -(positive * np.log(positive)).sum()
    return {"participation_ratio": float(1 / (share**2).sum()), "entropy": float(np.exp(entropy))}


def view_statistics(cache: FeatureCache, scheduler: Scheduler) -> tuple[Sums, np.ndarray]:
    """Return the sums over all epochs of a view, and the images per class, int64 [largest label + 1]."""
    of_embeddings = [delayed(_sums_of_chunk)(chunk) for epoch in range(cache.epochs) for chunk in chunks(cache, epoch)]
    of_labels = [delayed(_images_per_class)(chunk) for chunk in chunks(cache, 0)]
    sums = functools.reduce(operator.add, scheduler.in_order(of_embeddings))
    return sums, functools.reduce(_padded_sum, scheduler.in_order(of_labels))


def _sums_of_chunk(chunk: Chunk) -> Sums:
    return sums_of(chunk.read("embedding"))


def _images_per_class(chunk: Chunk) -> np.ndarray:
    return np.bincount(chunk.read("label"))


def _padded_sum(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    shorter, longer = sorted((one, other), key=len)
    return longer + np.pad(shorter, (0, len(longer) - len(shorter)))


def write_statistics(job: Job[Any]) -> None:
    """Write the statistics of a view: `statistics.json`, and `dimensions`, `eigenvalues` and `classes` as parquet.

    The covariance is that of the population: products / n - mean mean^T over the n finite rows.
    """
    cache = FeatureCache(job.input("features").parent)
    if cache.rows == 0:
        raise PipelineError(f"{cache.view_dir}: holds no images, since none could be decoded; its manifest lists them")
    with computing(job.settings.scheduler) as running:
        sums, per_class = view_statistics(cache, running)
    count = max(1, sums.finite)
    mean = sums.total / count
    covariance = sums.products / count - np.outer(mean, mean)
    eigenvalues = np.linalg.eigvalsh(covariance)[::-1].clip(min=0)
    values = sums.rows * cache.dim
    facts = {
        "images": cache.rows,
        "epochs": cache.epochs,
        "rows": sums.rows,
        "dim": cache.dim,
        "rows_with_nan_or_infinity": sums.rows - sums.finite,
        "nans": sums.nans,
        "infinities": sums.infinities,
        "share_of_zeros": int(sums.zeros.sum()) / values if values else 0.0,
        "norm_quantiles": norm_quantiles(sums.norm_bins) if sums.finite else {},
        "norm_relative_error": NORM_RELATIVE_ERROR,
        "effective_dimension": effective_dimensions(eigenvalues),
        "classes": int((per_class > 0).sum()),
        "images_per_class": {"smallest": int(per_class[per_class > 0].min()), "largest": int(per_class.max())},
    }
    dimensions = {
        "mean": mean,
        "std": np.sqrt(np.diag(covariance).clip(min=0)),
        "share_of_zeros": sums.zeros / max(1, sums.rows),
    }
    with job.writing() as draft:
        (draft.path / "statistics.json").write_text(canonical_json(facts) + "\n", encoding="utf-8")
        pd.DataFrame(dimensions).to_parquet(draft.path / "dimensions.parquet", index=False)
        pd.DataFrame({"eigenvalue": eigenvalues}).to_parquet(draft.path / "eigenvalues.parquet", index=False)
        pd.DataFrame({"label": np.arange(len(per_class)), "images": per_class}).to_parquet(
            draft.path / "classes.parquet", index=False
        )
        draft.facts.update(facts)
