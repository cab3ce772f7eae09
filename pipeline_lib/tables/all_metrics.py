"""Every metric of every dataset and method, as the median over seeds.

Metrics of the classifier (top-1, top-5, AUROC for a wrong class) exist on the upstream dataset only, the correlation
with the entropy of human votes only where there are votes. AUROC (OOD) compares downstream with upstream images: 0.5
means that both are equally uncertain.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pipeline_lib.metrics.found import components, headed
from pipeline_lib.tables.render import NOTHING, Table
from pipeline_lib.tables.spec import SetsSpec
from pipeline_lib.tables.summary import MEAN, METHODS, EvaluationSet, row_names, summarise

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.config.config import Config
    from pipeline_lib.metrics.metric import Metric

LABEL, PAPER = "all metrics", ""
_MEANS = " (k of m): the mean over the k of m downstream sets that have the metric."
_KEYS = ["backbone", "method", "variant", "dataset", "split"]
# What a reader sees first, in this order; the CSV has every metric.
_FIRST = (
    *("r1", "top1", "top5", "auroc_correct", "auroc_correct_mixed", "auroc_classification", "auroc_ood"),
    *("rcorr_entropy", "auroc_not_dirac", "croppedHasBiggerUnc", "rcorr_crop_unc"),
)


class Spec(SetsSpec):
    """What is shown."""

    backbones: tuple[str, ...]
    variants: tuple[str, ...]


def plugins(config: Config) -> list[str]:
    """Return the components that are chosen by name: all metrics."""
    return components()


def build(spec: Spec, metrics: pd.DataFrame, published: pd.DataFrame | None) -> pd.DataFrame:
    """Return one row per backbone, method, variant and set, one column per metric: medians over seeds.

    What depends on the representation alone (Recall@1, the classifier's accuracy) is repeated for each method. The
    means over downstream sets come last within a method. A metric that does not apply is NaN.

    metrics: rows as `summary.read_metrics` gives them.
    """
    summary = summarise(metrics)["median"].reset_index()
    of_backbones = summary[summary["backbone"].isin(spec.backbones) & summary["variant"].isin(["", *spec.variants])]
    on = ["backbone", "dataset", "split"]
    table = _wide(of_backbones[of_backbones["method"].isin(METHODS)], _KEYS)
    of_representation = _wide(of_backbones[of_backbones["method"] == "representation"], on)
    table = table.merge(of_representation, on=on, how="left", validate="many_to_one")
    order = {"backbone": list(spec.backbones), "method": list(METHODS), "variant": ["", *spec.variants]}
    ranks = [table[column].map({name: rank for rank, name in enumerate(names)}) for column, names in order.items()]
    sets = {shown: rank for rank, shown in enumerate([*spec.sets, MEAN])}
    table["_set"] = [sets.get(EvaluationSet(*pair)) for pair in table[["dataset", "split"]].to_numpy()]
    table = table.assign(**{f"_{column}": rank for column, rank in zip(order, ranks, strict=True)})
    by = [*(f"_{column}" for column in order), "_set"]
    table = table.dropna(subset="_set").sort_values(by, ignore_index=True).drop(columns=by)
    shown_first = [*_KEYS, *_shown(table)]
    return table[[*shown_first, *(column for column in table.columns if column not in shown_first)]]


def _shown(table: pd.DataFrame) -> dict[str, tuple[Metric, str]]:
    """Return the metrics that are shown to readers, and how they are headed, by column."""
    metrics = {column: found for column in table.columns if (found := headed(column)) and found[0].is_shown}
    return {column: metrics[column] for column in dict.fromkeys([*_FIRST, *metrics]) if column in metrics}


def _over_how_many(table: pd.DataFrame, spec: Spec) -> pd.DataFrame:
    """Return what to say behind each value: of a mean over only some of the downstream sets, over how many; else ""."""
    metrics, group = table.columns.difference(_KEYS), ["backbone", "method", "variant"]
    is_unseen = [EvaluationSet(*pair) in spec.downstream for pair in table[["dataset", "split"]].to_numpy()]
    found = table[metrics].notna().mul(is_unseen, axis=0)
    counts = found.groupby([table[key] for key in group]).transform("sum")
    total = len(spec.downstream)
    said = counts.map(lambda count: f" ({count} of {total})" if 0 < count < total else "")
    said.loc[table["dataset"] != MEAN.dataset] = ""
    return said


def _wide(summary: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return summary.pivot(index=keys, columns="metric", values="median").reset_index().rename_axis(columns=None)


def present(table: pd.DataFrame, spec: Spec) -> Table:
    """Return the result of `build` ready to be written, with the metrics that are shown to readers."""
    import pandas as pd

    method = table["method"].map(METHODS)
    shown = pd.DataFrame(
        {
            "Backbone": table["backbone"],
            "Method": method.where(table["variant"] == "", method + " (" + table["variant"] + ")"),
            "Dataset": row_names(table),
        }
    )
    metrics = _shown(table)
    averaged = _over_how_many(table[[*_KEYS, *metrics]], spec)
    for column, (metric, heading) in metrics.items():
        texts = pd.Series([NOTHING if math.isnan(value) else metric.shown(value) for value in table[column]])
        shown[heading] = texts + averaged[column]
    caption = (
        "Medians over seeds. R@1: share of images whose nearest neighbour has the same label. R-AUROC: AUROC of the "
        "uncertainty u for a wrong nearest neighbour; (mixed): among as many upstream images. AUROC (classifier): for "
        "a wrong top-1 class. AUROC (OOD): for downstream images against upstream images. Corr. (votes): Spearman "
        "correlation of u with the entropy of human votes. AUROC (ambiguous): for images whose votes disagree. Crop "
        "raises u: share of images whose centre crop is more uncertain. Corr. (crop): Spearman correlation of -u with "
        "the share of the side that a crop keeps."
        + _MEANS
        + "".join(
            f" {heading}: {metric.description}" for column, (metric, heading) in metrics.items() if column not in _FIRST
        )
    )
    return Table(table, shown, pd.DataFrame(index=shown.index), caption, groups=2)
