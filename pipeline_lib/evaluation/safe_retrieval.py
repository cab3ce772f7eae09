"""Safe retrieval (Table 1 of the paper): the 1-NN error when the most uncertain images are left out.

A share r of the images with the largest u is rejected as queries, removed from the database, or both. "The most
uncertain" is meant within groups, in three ways (`KINDS`):

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
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.evaluation.alignment import positions, require_same_images
from pipeline_lib.evaluation.metric_rows import Value, metric_rows, write_metric_rows
from pipeline_lib.evaluation.scores import METRICS, read_scores
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.metrics.checks import require_no_nan
from pipeline_lib.metrics.retrieval import neighbour_is_correct
from pipeline_lib.retrieval.restricted import nearest_kept
from pipeline_lib.retrieval.store import read_neighbours

STAGE = "safe_retrieval"
CURVES = "curves.csv"
SURFACE = "surface.csv"
# How the groups are formed, and what the names of the metrics end in; the published ones have no ending.
KINDS = {"per_class": "", "global": "_global", "per_neighbour_class": "_per_neighbour_class"}


def evaluate_safe_retrieval(
    spec: Mapping[str, Any],
    eval_cache: FeatureCache,
    baselines_dir: Path,
    scores_dir: Path,
    neighbours_dir: Path,
    out: Path,
) -> None:
    """Evaluate the heads of a variant on one split and write the artefact.

    `metrics.csv` holds, per seed, `error_1nn_full` and, at the share `table_share`, `error_1nn_clean_queries` and
    `error_1nn_clean_database` (rejected as queries and removed from the database) of each kind. `curves.csv` has the
    errors per seed, kind and share, `surface.csv` those per seed, query share and database share of the kind `global`.

    spec: `backbone`, `variant`, `seeds`, `dataset`, `split`, `is_upstream`, `shares`, `table_share`.
    eval_cache: the view `eval` of the split. baselines_dir, scores_dir: the evaluations of the split, of the baselines
    and of the heads. neighbours_dir: its neighbours.
    Raises `PipelineError` for shares that make no sense, `ArtefactError` naming the artefact whose images don't match.
    """
    shares = checked_shares(spec["shares"], spec["table_share"])
    same_set = {key: spec[key] for key in ("backbone", "dataset", "split")}
    baselines = read_scores(baselines_dir, same_set)
    scores = read_scores(scores_dir, {**same_set, "variant": spec["variant"]})
    neighbours = read_neighbours(neighbours_dir, same_set)
    sample_id = eval_cache.read_all("sample_id")
    require_same_images(sample_id, baselines["sample_id"], baselines_dir)
    require_same_images(sample_id, scores["sample_id"], scores_dir)
    require_same_images(sample_id, neighbours.sample_id, neighbours_dir)
    neighbour = positions(neighbours.neighbour_sample_id, sample_id, eval_cache.view_dir)
    label = baselines["label"]

    groups = {
        "per_class": label,
        "global": np.zeros_like(label),
        "per_neighbour_class": label[neighbour],
    }
    removed_at = {}
    for seed in spec["seeds"]:
        uncertainty = scores[f"uncertainty_seed{seed}"]
        require_no_nan(uncertainty, f"uncertainty of seed {seed} on {spec['dataset']}")
        for kind in KINDS:
            removed_at[seed, kind] = removal_level(uncertainty, groups[kind], shares)
    nearest = nearest_kept(
        lambda start, stop: eval_cache.read("embedding", 0, start, stop),
        neighbour,
        np.stack(list(removed_at.values())),
        len(shares),
    )
    grids = {
        key: error_grid(level, np.stack([neighbour_is_correct(label, each) for each in found]), len(shares))
        for (key, level), found in zip(removed_at.items(), nearest, strict=True)
    }
    with artefacts.writing(out, STAGE, spec) as draft:
        rows = _metric_rows(spec, grids, shares.index(spec["table_share"]))
        write_metric_rows(pd.DataFrame(rows), draft.path / METRICS)
        _curves(grids, shares).to_csv(draft.path / CURVES, index=False, lineterminator="\n")
        _surface(grids, shares).to_csv(draft.path / SURFACE, index=False, lineterminator="\n")
        draft.add_input("features", eval_cache.manifest)
        draft.add_input("baselines", baselines.manifest)
        draft.add_input("scores", scores.manifest)
        draft.add_input("neighbours", neighbours.manifest)
        draft.facts.update(rows=len(label))


def checked_shares(shares: Sequence[float], table_share: float) -> list[float]:
    """Return the shares; raises `PipelineError` unless they rise from 0 to less than 1 and hold `table_share`."""
    is_rising = all(low < high for low, high in itertools.pairwise(shares))
    if not shares or shares[0] != 0 or not is_rising or shares[-1] >= 1:
        raise PipelineError(f"shares is {list(shares)}, but must rise from 0 to less than 1, such as [0, 0.05, 0.1]")
    if table_share not in shares:
        raise PipelineError(f"table_share is {table_share}, but must be one of the shares {list(shares)}; add it")
    return list(shares)


def removal_level(uncertainty: np.ndarray, group: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Return the place in `shares` of the first share at which each image is left out, int64 [n].

    uncertainty: float [n]. group: int [n]. shares: ascending. Images that are never left out have `len(shares)`.
    In a group of m images, floor(share m) are left out: those of the largest u, of equal ones the later rows.
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

    removed_at: level from which each image is left out, int [n]. correct: per database level, whether each image's
    nearest kept neighbour has its label, bool [levels, n].
    """
    is_kept = removed_at > np.arange(levels)[:, None]
    queries = is_kept.sum(axis=1)
    wrong = is_kept.astype(np.int64) @ (~correct).T.astype(np.int64)
    return wrong / queries[:, None], queries


Grids = Mapping[tuple[int, str], tuple[np.ndarray, np.ndarray]]


def _metric_rows(spec: Mapping[str, Any], grids: Grids, place: int) -> list[dict[str, Any]]:
    rows = []
    for seed in spec["seeds"]:
        error, queries = grids[seed, "global"]
        metrics = {"error_1nn_full": Value(float(error[0, 0]), int(queries[0]))}
        for kind, ending in KINDS.items():
            error, queries = grids[seed, kind]
            n = int(queries[place])
            metrics[f"error_1nn_clean_queries{ending}"] = Value(float(error[place, 0]), n)
            metrics[f"error_1nn_clean_database{ending}"] = Value(float(error[place, place]), n)
        rows += metric_rows(spec, "head", seed, metrics)
    return rows


def _curves(grids: Grids, shares: Sequence[float]) -> pd.DataFrame:
    """Return one row per seed, kind and share: what is left out as queries, from the database, and in both ways.

    n_queries: the queries of `clean_queries` and `clean_both`, and the images that the database is left with;
    `clean_database` has all images as queries.
    """
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "seed": seed,
                    "kind": kind,
                    "share": shares,
                    "clean_queries": error[:, 0],
                    "clean_database": error[0],
                    "clean_both": np.diag(error),
                    "n_queries": queries,
                }
            )
            for (seed, kind), (error, queries) in grids.items()
        ],
        ignore_index=True,
    )


def _surface(grids: Grids, shares: Sequence[float]) -> pd.DataFrame:
    """Return one row per seed, query share and database share of the kind `global`."""
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
            for (seed, kind), (error, queries) in grids.items()
            if kind == "global"
        ],
        ignore_index=True,
    )
