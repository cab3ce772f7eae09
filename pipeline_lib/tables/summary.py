"""Metric rows, summarised over seeds: what every table and most figures are a view of."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline_lib.evaluation.spec import MEAN_DATASET, MEAN_PREFIX

if TYPE_CHECKING:
    import pandas as pd

KEY = ["backbone", "method", "variant", "dataset", "split", "metric"]
# What readers see of the methods that have an uncertainty; the representation itself has none.
METHODS = {
    "head": "head",
    "class_entropy": "class entropy",
    "embedding_norm": "embedding norm",
    "knn_distance": "1-NN distance",
    "combination": "distance + head",
}
OF_HEADS = ("head", "combination")  # those that there is one of for each variant and seed


class EvaluationSet(NamedTuple):
    """One split of one dataset."""

    dataset: str
    split: str


# The plain mean over the downstream sets stands under this name.
MEAN = EvaluationSet(MEAN_DATASET, "")


def read_metrics(path: Path) -> pd.DataFrame:
    """Read metric rows: those of an artefact, or of a file below `workflow/published`, which has more columns.

    Text columns hold "" where nothing applies (a baseline has no variant), `seed` and `n` are Int64 with missing
    values, `value` is float64. Raises `PipelineError` when columns are missing, `ArtefactError` for a damaged artefact.
    """
    import pandas as pd

    from pipeline_lib.core.artefacts import file_of
    from pipeline_lib.evaluation.metric_rows import read_metric_rows

    table = read_metric_rows(file_of(path, "metrics.csv"))
    for column in table.columns.intersection(["spread", "minimum", "maximum"]):
        table[column] = pd.to_numeric(table[column].replace("", None)).astype("float64")
    return table


def summarise(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return median, minimum, maximum, spread, seeds and n per backbone, method, variant, set and metric.

    The spread is the larger distance from the median to the minimum or maximum over seeds, as in the paper.
    `seeds` is the number of values and `n` the number of images. The means over downstream sets
    (`avg_downstream_<metric>`) appear as <metric> of the set `MEAN`. Indexed by `KEY`, in order of appearance.

    metrics: rows as `read_metrics` gives them.
    """
    import numpy as np
    import pandas as pd

    rows = metrics[[*KEY, "value", "n"]].copy()
    is_mean = rows["metric"].str.startswith(MEAN_PREFIX)
    rows.loc[is_mean, ["dataset", "split"]] = list(MEAN)
    rows["metric"] = rows["metric"].str.removeprefix(MEAN_PREFIX)
    groups = rows.groupby(KEY, sort=False)
    summary = pd.DataFrame(groups["value"].agg(median="median", minimum="min", maximum="max", seeds="size"))
    summary["spread"] = np.maximum(summary["median"] - summary["minimum"], summary["maximum"] - summary["median"])
    summary["n"] = groups["n"].first().astype("float64")  # NaN where the number of images is not known
    return summary


class Summary:
    """Quick look-up in the result of `summarise`; what was not measured is NaN."""

    def __init__(self, metrics: pd.DataFrame) -> None:
        self._rows = summarise(metrics).to_dict("index")

    def __call__(
        self,
        metric: str,
        evaluation_set: EvaluationSet,
        backbone: str,
        method: str = "head",
        variant: str = "",
        statistic: str = "median",
    ) -> float:
        """Return one statistic over seeds: `median`, `minimum`, `maximum`, `spread`, `seeds` or `n`."""
        row = self._rows.get((backbone, method, variant, *evaluation_set, metric))
        return float("nan") if row is None else float(row[statistic])

    def median_and_spread(self, metric: str, evaluation_set: EvaluationSet, backbone: str, variant: str) -> str:
        """Return a head's value as a label of a figure: `0.71±0.02` over several seeds, `0.71` of one, `–` for none."""
        median, spread, seeds = (
            self(metric, evaluation_set, backbone, "head", variant, statistic)
            for statistic in ("median", "spread", "seeds")
        )
        if math.isnan(median):
            return "–"
        return f"{median:.2f}" if seeds <= 1 else f"{median:.2f}±{spread:.2f}"


def on_sets(metrics: pd.DataFrame, evaluation_sets: Collection[EvaluationSet]) -> pd.DataFrame:
    """Return the metric rows of some sets."""
    import pandas as pd

    return metrics[pd.MultiIndex.from_frame(metrics[["dataset", "split"]]).isin(list(evaluation_sets))]


def typical_seed(metrics: pd.DataFrame, downstream: Sequence[EvaluationSet], backbone: str, variant: str) -> int:
    """Return the seed whose mean `auroc_ood` over the downstream sets is the (lower) median of all seeds."""
    is_head = (metrics["method"] == "head") & (metrics["backbone"] == backbone) & (metrics["variant"] == variant)
    rows = on_sets(metrics[is_head & (metrics["metric"] == "auroc_ood")], downstream)
    means = rows.groupby("seed")["value"].mean().sort_values(kind="stable")
    return int(means.index[(len(means) - 1) // 2])


def role(evaluation_set: EvaluationSet, upstream: EvaluationSet) -> str:
    """Return `mean`, `upstream` or `downstream`: what a row of a table is about."""
    if evaluation_set == MEAN:
        return "mean"
    return "upstream" if evaluation_set == upstream else "downstream"


def names(evaluation_sets: Sequence[EvaluationSet]) -> dict[EvaluationSet, str]:
    """Return a name for each set: the dataset's, followed by the split where a dataset occurs more than once."""
    datasets = [evaluation_set.dataset for evaluation_set in evaluation_sets]
    return {pair: pair.dataset if datasets.count(pair.dataset) == 1 else "/".join(pair) for pair in evaluation_sets}


def resampled(table: pd.DataFrame) -> str:
    """Return what the intervals of a table resample, for a caption, from its columns `resampled_classes`, `dataset`."""
    classes = table["resampled_classes"]
    of_images = list(dict.fromkeys(table.loc[classes == 0, "dataset"]))
    if not (classes > 0).any():
        return "over images"
    return "over whole classes" + (f" ({', '.join(of_images)}: over images)" if of_images else "")


def row_names(table: pd.DataFrame) -> list[str]:
    """Return what to call the set of each row of a table with the columns `dataset` and `split`."""
    sets = [EvaluationSet(*pair) for pair in table[["dataset", "split"]].itertuples(index=False, name=None)]
    known = names(list(dict.fromkeys(sets))) | {MEAN: "mean of downstream"}
    return [known[evaluation_set] for evaluation_set in sets]
