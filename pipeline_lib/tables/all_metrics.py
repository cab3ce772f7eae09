"""Every metric of every dataset and method, as the median over seeds.

Metrics of the classifier (top-1, top-5, AUROC for a wrong class) exist on the upstream dataset only, the correlation
with the entropy of human votes only where there are votes. AUROC (OOD) compares downstream with upstream images: 0.5
means that both are equally uncertain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.metrics.found import components, found_metrics
from pipeline_lib.tables.render import Table, number
from pipeline_lib.tables.spec import SetsSpec
from pipeline_lib.tables.summary import MEAN, METHODS, EvaluationSet, row_names, summarise

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.config.config import Config
    from pipeline_lib.metrics.metric import Metric

LABEL, PAPER = "all metrics", ""
_KEYS = ["backbone", "method", "variant", "dataset", "split"]
# The order in which a reader sees them; others that are to be shown follow.
_FIRST = ("r1", "top1", "top5", "auroc_correct", "auroc_correct_mixed", "auroc_classification", "auroc_ood")
_EXPLAINED = (*_FIRST, "rcorr_entropy", "auroc_not_dirac", "croppedHasBiggerUnc", "rcorr_crop_unc")


class Spec(SetsSpec):
    """What is shown."""

    backbones: tuple[str, ...]
    variants: tuple[str, ...]


def plugins(config: Config) -> list[str]:
    """Return the components that say which metrics there are."""
    return components("metrics.representation", "metrics")


def shown_metrics() -> dict[str, Metric]:
    """Return the metrics that a reader sees, by name; the CSV has every metric."""
    metrics = [*found_metrics("metrics.representation"), *found_metrics("metrics")]
    metrics.sort(key=lambda metric: _FIRST.index(metric.name) if metric.name in _FIRST else len(_FIRST))
    return {metric.name: metric for metric in metrics if metric.is_shown}


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
    shown_first = [*_KEYS, *(name for name in shown_metrics() if name in table)]
    return table[[*shown_first, *(column for column in table.columns if column not in shown_first)]]


def _wide(summary: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return summary.pivot(index=keys, columns="metric", values="median").reset_index().rename_axis(columns=None)


def present(table: pd.DataFrame, spec: Spec) -> Table:
    """Return the result of `build` ready to be written, with the columns of `shown_metrics` that it has."""
    import pandas as pd

    method = table["method"].map(METHODS)
    shown = pd.DataFrame(
        {
            "Backbone": table["backbone"],
            "Method": method.where(table["variant"] == "", method + " (" + table["variant"] + ")"),
            "Dataset": row_names(table),
        }
    )
    found = {name: metric for name, metric in shown_metrics().items() if name in table}
    for name, metric in found.items():
        shown[metric.label] = table[name].map(number)
    caption = (
        "Medians over seeds. R@1: share of images whose nearest neighbour has the same label. R-AUROC: AUROC of the "
        "uncertainty u for a wrong nearest neighbour; (mixed): among as many upstream images. AUROC (classifier): for "
        "a wrong top-1 class. AUROC (OOD): for downstream images against upstream images. Corr. (votes): Spearman "
        "correlation of u with the entropy of human votes. AUROC (ambiguous): for images whose votes disagree. Crop "
        "raises u: share of images whose centre crop is more uncertain. Corr. (crop): Spearman correlation of -u with "
        "the share of the side that a crop keeps."
    )
    others = [metric for name, metric in found.items() if name not in _EXPLAINED]
    caption = " ".join([caption, *(f"{metric.label}: {metric.description}" for metric in others)])
    return Table(table, shown, pd.DataFrame(index=shown.index), caption, groups=2)
