"""Safe retrieval (Table 1 of the paper): the 1-NN error when the most uncertain images are left out.

A share r of the images with the largest u is rejected as queries, removed from the database, or both; beside u stand
the distance to the nearest neighbour and both together (`SIGNALS`, see `retrieval.signals`), in the full database. "The
largest" is meant within groups, in three ways (`KINDS`):

- per_class: the groups are the true classes, as in the published table, although a query's class is not known;
- global: all images are one group;
- per_neighbour_class: the groups are the classes of the images' nearest neighbours, which a labelled database tells.

In a group of m images, floor(r m) are left out (with small groups less than r in all); of images with equal u the
later rows go first. So what is left out at a share is left out at every larger one. An error is the share of the
queries that are left whose nearest neighbour among the other images of the database has another label; an image
without any other one of its class in the database counts as wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Job
from pipeline_lib.evaluation.alignment import positions, require_same_images
from pipeline_lib.evaluation.metric_rows import metric_rows, write_metric_rows
from pipeline_lib.evaluation.scores import METRICS, read_scores
from pipeline_lib.evaluation.spec import KINDS, SIGNALS, SafeRetrievalSpec
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.metrics.checks import require_no_nan
from pipeline_lib.metrics.metric import Value
from pipeline_lib.metrics.retrieval import neighbour_is_correct
from pipeline_lib.retrieval.restricted import nearest_kept
from pipeline_lib.retrieval.signals import Combination, Signal, signal_of
from pipeline_lib.retrieval.store import read_neighbours

CURVES = "curves.csv"
SURFACE = "surface.csv"


def evaluate_safe_retrieval(job: Job[SafeRetrievalSpec], eval_cache: FeatureCache) -> None:
    """Evaluate the heads of a variant on one split and write the artefact.

    `metrics.csv` holds, per seed, `error_1nn_full` and, at the share `table_share`, `error_1nn_clean_queries` and
    `error_1nn_clean_database` (rejected as queries and removed from the database) of each kind and signal. `curves.csv`
    has the errors per seed, kind, signal and share, `surface.csv` those per seed, query share and database share of the
    kind `global` by the uncertainty.

    Parameters
    ----------
    job
        Its inputs: `baselines` and `scores`, the evaluations of the split by the baselines and by the heads, and its
        `neighbours`.
    eval_cache
        The view `eval` of the split.

    Raises
    ------
    ArtefactError
        Naming the artefact whose images don't match.
    PipelineError
        Naming the set of which too few images are left.
    """
    spec, shares = job.spec, job.spec.left_out.shares
    baselines = read_scores(job.input("baselines"), spec.same_set())
    scores = read_scores(job.input("scores"), spec.same_set("variant"))
    neighbours = read_neighbours(job.input("neighbours"), spec.same_set())
    sample_id = eval_cache.read_all("sample_id")
    require_same_images(sample_id, baselines["sample_id"], job.input("baselines"))
    require_same_images(sample_id, scores["sample_id"], job.input("scores"))
    require_same_images(sample_id, neighbours.sample_id, job.input("neighbours"))
    neighbour = positions(neighbours.neighbour_sample_id, sample_id, eval_cache.view_dir)
    label = baselines["label"]

    groups = {
        "per_class": label,
        "global": np.zeros_like(label),
        "per_neighbour_class": label[neighbour],
    }
    distance = baselines["knn_distance"]
    removed_at: dict[Key, np.ndarray] = {}
    for seed, uncertainty in scores.of_seeds(spec.seeds).items():
        require_no_nan(uncertainty, f"uncertainty of seed {seed} on {spec.dataset}")
        combination = Combination.of(distance, uncertainty)
        for kind, signal in itertools.product(KINDS, SIGNALS):
            value = signal_of(signal, combination, distance, uncertainty)
            removed_at[seed, kind, signal] = removal_level(value, groups[kind], shares)
    try:
        # The distance is the same for all seeds, and what is the same is searched once.
        distinct, which = np.unique(np.stack(list(removed_at.values())), axis=0, return_inverse=True)
        read = lambda start, stop: eval_cache.read("embedding", 0, start, stop)  # noqa: E731
        nearest = nearest_kept(read, neighbour, distinct, len(shares))[which]
    except PipelineError as error:
        raise PipelineError(
            f"{spec.dataset}/{spec.split}: {error} (evaluation.safe_retrieval.shares), or take the set out of the run"
        ) from None
    grids = {
        key: error_grid(level, np.stack([neighbour_is_correct(label, of_level) for of_level in found]), len(shares))
        for (key, level), found in zip(removed_at.items(), nearest, strict=True)
    }
    with job.writing() as draft:
        rows = _metric_rows(spec, grids)
        write_metric_rows(pd.DataFrame(rows), draft.path / METRICS)
        _curves(grids, shares).to_csv(draft.path / CURVES, index=False, lineterminator="\n")
        _surface(grids, shares).to_csv(draft.path / SURFACE, index=False, lineterminator="\n")
        draft.facts.update(rows=len(label))


def removal_level(uncertainty: np.ndarray, group: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Return the position in `shares` of the first share at which each image is left out, int64 [n].

    In a group of m images, floor(share m) are left out: those of the largest u, of equal ones the later rows. Images
    that are never left out have `len(shares)`.

    Parameters
    ----------
    uncertainty
        u, float [n].
    group
        int [n].
    shares
        Ascending.
    """
    rows = len(group)
    order = np.lexsort((-np.arange(rows), -uncertainty, group))
    ordered = group[order]
    first = np.searchsorted(ordered, ordered, side="left")
    size = np.searchsorted(ordered, ordered, side="right") - first
    # 0.29 * 100 is a little less than 29, which must not cost an image.
    left_out = np.floor(np.outer(shares, size) + 1e-9)
    level = np.empty(rows, dtype=np.int64)
    level[order] = (left_out <= np.arange(rows) - first).sum(axis=0)
    return level


def error_grid(removed_at: np.ndarray, correct: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the error per query level (rows) and database level (columns), float64, and the queries of each row.

    Parameters
    ----------
    removed_at
        Level from which each image is left out, int [n].
    correct
        Per database level, whether each image's nearest kept neighbour has its label, bool [levels, n].
    levels
        Number of levels.
    """
    is_kept = removed_at > np.arange(levels)[:, None]
    queries = is_kept.sum(axis=1)
    wrong = is_kept.astype(np.int64) @ (~correct).T.astype(np.int64)
    return wrong / queries[:, None], queries


Key = tuple[int, str, Signal]  # seed, kind, signal
Grids = Mapping[Key, tuple[np.ndarray, np.ndarray]]


def _metric_rows(spec: SafeRetrievalSpec, grids: Grids) -> list[dict[str, Any]]:
    rows, level = [], spec.left_out.shares.index(spec.left_out.table_share)
    for seed in spec.seeds:
        error, queries = grids[seed, "global", "uncertainty"]
        metrics = {"error_1nn_full": Value(float(error[0, 0]), int(queries[0]))}
        for kind, signal in itertools.product(KINDS, SIGNALS):
            error, queries = grids[seed, kind, signal]
            n, ending = int(queries[level]), KINDS[kind] + SIGNALS[signal]
            metrics[f"error_1nn_clean_queries{ending}"] = Value(float(error[level, 0]), n)
            metrics[f"error_1nn_clean_database{ending}"] = Value(float(error[level, level]), n)
        rows += metric_rows(spec, "head", seed, metrics)
    return rows


def _curves(grids: Grids, shares: Sequence[float]) -> pd.DataFrame:
    """Return one row per seed, kind, signal and share: left out as queries, from the database, and in both ways.

    n_queries: the queries of `clean_queries` and `clean_both`, and the images that the database is left with;
    `clean_database` has all images as queries.
    """
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "seed": seed,
                    "kind": kind,
                    "signal": signal,
                    "share": shares,
                    "clean_queries": error[:, 0],
                    "clean_database": error[0],
                    "clean_both": np.diag(error),
                    "n_queries": queries,
                }
            )
            for (seed, kind, signal), (error, queries) in grids.items()
        ],
        ignore_index=True,
    )


def _surface(grids: Grids, shares: Sequence[float]) -> pd.DataFrame:
    """Return one row per seed, query share and database share of the kind `global`, by the uncertainty."""
    count = len(shares)
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "seed": seed,
                    "query_share": np.repeat(shares, count),
                    "database_share": np.tile(shares, count),
                    "error": error.ravel(),
                    "n": np.repeat(queries, count),
                }
            )
            for (seed, kind, signal), (error, queries) in grids.items()
            if (kind, signal) == ("global", "uncertainty")
        ],
        ignore_index=True,
    )
