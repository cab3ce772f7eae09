"""Whether an uncertainty tells wrong from right queries of the same class, and how the classes differ in it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.metrics.checks import require_no_nan
from pipeline_lib.metrics.metric import Metric

if TYPE_CHECKING:
    import pandas as pd

_REJECTED = 0.1


def auroc_within_classes(uncertainty: np.ndarray, wrong: np.ndarray, label: np.ndarray, dataset: str) -> float:
    """Return the probability that a wrong query has a larger u than a right one of its class; ties count half.

    All pairs of a wrong and a right query of one class count alike, so a class counts by the number of its pairs.

    uncertainty: float [n]. wrong: bool [n]. label: int [n]. dataset: named in messages.
    NaN, with a warning, when no class has both wrong and right queries. Raises `PipelineError` for NaN in u, naming the
    row.
    """
    require_no_nan(uncertainty, f"uncertainty on {dataset}")
    wins, pairs = _pairs(uncertainty, wrong, label)
    if not pairs.any():
        message = f"{dataset}: no class has both wrong and right queries, so R-AUROC within classes is undefined"
        warnings.warn(message, stacklevel=2)
        return float("nan")
    return float(wins.sum() / pairs.sum())


def class_table(
    uncertainty: np.ndarray, wrong: np.ndarray, label: np.ndarray, names: np.ndarray | None = None
) -> pd.DataFrame:
    """Return what the queries of each class are like: one row per class, the largest median u first.

    Columns: `class`, `images`, `error` (1-NN), `median_rank` of u among all images (0 to 1), `r_auroc` within the class
    (NaN where all are wrong or all right), `rejected`: the share of the class among the most uncertain tenth of all,
    and `threshold`: the u above which the most uncertain tenth of this class lies.

    uncertainty: float [n]. wrong: bool [n]. label: int [n], from 0. names: of the classes; None = their numbers.
    """
    import pandas as pd

    from pipeline_lib.metrics.ranks import rank_shares

    wins, pairs = _pairs(uncertainty, wrong, label)
    by_class = pd.DataFrame(
        {
            "class": label,
            "error": np.asarray(wrong, np.float64),
            "median_rank": rank_shares(uncertainty),
            "rejected": uncertainty > np.quantile(uncertainty, 1 - _REJECTED, method="inverted_cdf"),
            "threshold": uncertainty,
        }
    ).groupby("class")
    table = by_class.agg({"error": "mean", "median_rank": "median", "rejected": "mean"})
    table.insert(0, "images", by_class.size())
    with np.errstate(invalid="ignore"):
        table.insert(3, "r_auroc", (wins / pairs)[table.index])
    table["threshold"] = by_class["threshold"].quantile(1 - _REJECTED, interpolation="lower")
    table = table.sort_values("median_rank", ascending=False, kind="stable").reset_index()
    if names is not None:
        table["class"] = np.asarray(names)[table["class"]]
    return table


def worst_queries(uncertainty: np.ndarray, wrong: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows to look at, int64 [at most count] each: the wrong queries of the smallest u, and of the largest.

    The first are answered with confidence and wrong; the second are what the uncertainty finds.
    """
    rows = np.flatnonzero(wrong)
    rows = rows[np.argsort(uncertainty[rows], kind="stable")]
    return rows[:count], rows[::-1][:count]


def _pairs(uncertainty: np.ndarray, wrong: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, per class, how many pairs of a wrong and a right query u puts in order (ties: half), and how many."""
    order = np.lexsort((uncertainty, label))
    group, u, is_wrong = label[order], uncertainty[order], np.asarray(wrong, bool)[order]
    # Ranks within classes are ranks in this order, less those of the classes before.
    value = np.cumsum(np.append(False, (u[1:] != u[:-1]) | (group[1:] != group[:-1])))
    size = np.bincount(value)
    rank = (np.cumsum(size) - (size - 1) / 2)[value]
    images = np.bincount(group)
    rank = rank - (np.cumsum(images) - images)[group]
    positives = np.bincount(group[is_wrong], minlength=len(images))
    wins = np.bincount(group[is_wrong], rank[is_wrong], minlength=len(images)) - positives * (positives + 1) / 2
    return wins, positives * (images - positives)


METRICS = (
    Metric(
        "auroc_within_classes",
        "R-AUROC (within classes)",
        "higher",
        "Probability that a random wrong query has a larger uncertainty than a random right one of the same true "
        "class: what is left of the R-AUROC when the difficulty of the classes is taken out.",
        auroc_within_classes,
        ("uncertainty", "wrong", "label", "dataset"),
        is_shown=False,
    ),
)
