"""Every metric of every dataset on one page."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pipeline_lib.tables.render import Table, number
from pipeline_lib.tables.summary import MEAN, EvaluationSet, names, summarise

METHODS = {
    "head": "head",
    "class_entropy": "class entropy",
    "embedding_norm": "embedding norm",
    "knn_distance": "1-NN distance",
}
# What a reader sees, in this order; the CSV has every metric.
HEADINGS = {
    "r1": "R@1",
    "top1": "Top-1",
    "top5": "Top-5",
    "auroc_correct": "R-AUROC",
    "auroc_correct_mixed": "R-AUROC (mixed)",
    "auroc_classification": "AUROC (classifier)",
    "auroc_ood": "AUROC (OOD)",
    "rcorr_entropy": "Corr. (votes)",
    "auroc_not_dirac": "AUROC (ambiguous)",
    "croppedHasBiggerUnc": "Crop raises u",
    "rcorr_crop_unc": "Corr. (crop)",
}


def build(
    metrics: pd.DataFrame,
    upstream: EvaluationSet,
    downstream: Sequence[EvaluationSet],
    backbones: Sequence[str],
    variants: Sequence[str],
) -> pd.DataFrame:
    """Return one row per backbone, method, variant and set, one column per metric: medians over seeds.

    What depends on the representation alone (Recall@1, the classifier's accuracy) is repeated for each method. The
    means over downstream sets come last within a method. A metric that does not apply is NaN.

    metrics: rows as `summary.read_metrics` gives them.
    """
    rank = {evaluation_set: place for place, evaluation_set in enumerate([upstream, *downstream, MEAN])}
    summary = summarise(metrics)["median"].reset_index()
    summary = summary[summary["backbone"].isin(backbones) & summary["variant"].isin(["", *variants])]
    of_representation = summary["method"] == "representation"
    on = ["backbone", "dataset", "split"]
    table = _wide(summary[summary["method"].isin(METHODS)], ["backbone", "method", "variant", "dataset", "split"])
    table = table.merge(_wide(summary[of_representation], on), on=on, how="left", validate="many_to_one")
    table["_set"] = [rank.get(EvaluationSet(*pair)) for pair in table[["dataset", "split"]].to_numpy()]
    table["_backbone"] = table["backbone"].map({name: place for place, name in enumerate(backbones)})
    table["_method"] = table["method"].map({name: place for place, name in enumerate(METHODS)})
    table["_variant"] = table["variant"].map({name: place for place, name in enumerate(["", *variants])})
    order = ["_backbone", "_method", "_variant", "_set"]
    table = table.dropna(subset="_set").sort_values(order, ignore_index=True).drop(columns=order)
    keys = ["backbone", "method", "variant", "dataset", "split"]
    shown_first = [metric for metric in HEADINGS if metric in table.columns]
    others = [column for column in table.columns if column not in {*keys, *shown_first}]
    return table[[*keys, *shown_first, *others]]


def _wide(summary: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return summary.pivot(index=keys, columns="metric", values="median").reset_index().rename_axis(columns=None)


def present(table: pd.DataFrame) -> Table:
    """Return the result of `build` ready to be written, with the columns of `HEADINGS` that it has."""
    label = names([EvaluationSet(*pair) for pair in table[["dataset", "split"]].drop_duplicates().to_numpy()])
    label[MEAN] = "mean of downstream"
    method = table["method"].map(METHODS)
    shown = pd.DataFrame(
        {
            "Backbone": table["backbone"],
            "Method": method.where(table["variant"] == "", method + " (" + table["variant"] + ")"),
            "Dataset": [label[EvaluationSet(*pair)] for pair in table[["dataset", "split"]].to_numpy()],
        }
    )
    for metric, heading in HEADINGS.items():
        if metric in table.columns:
            shown[heading] = table[metric].map(number)
    caption = (
        "Medians over seeds. R@1: share of images whose nearest neighbour has the same label. R-AUROC: AUROC of the "
        "uncertainty u for a wrong nearest neighbour; (mixed): among as many upstream images. AUROC (classifier): for "
        "a wrong top-1 class. AUROC (OOD): for downstream images against upstream images. Corr. (votes): Spearman "
        "correlation of u with the entropy of human votes. AUROC (ambiguous): for images whose votes disagree. Crop "
        "raises u: share of images whose centre crop is more uncertain. Corr. (crop): Spearman correlation of -u with "
        "the share of the side that a crop keeps."
    )
    bold = pd.DataFrame(False, index=shown.index, columns=shown.columns)
    return Table(values=table, shown=shown, bold=bold, caption=caption, groups=2)
