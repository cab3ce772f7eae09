"""Table 3 of the paper: what a change of loss, head, augmentation or optimiser does to the R-AUROC on unseen data."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pipeline_lib.tables import published as beside_published
from pipeline_lib.tables.published import MEAN_OF, Estimate, estimate, signed, with_spread
from pipeline_lib.tables.render import Table
from pipeline_lib.tables.summary import EvaluationSet, Summary

_METRIC = "auroc_correct"


def build(
    metrics: pd.DataFrame,
    published: pd.DataFrame | None,
    averaged: Sequence[EvaluationSet],
    backbones: Sequence[str],
    baseline: str,
    variants: Sequence[str],
) -> pd.DataFrame:
    """Return one row per backbone and variant, the baseline first: R-AUROC averaged over some sets.

    Columns: `auroc_correct` is the median over seeds of the mean over the sets, `spread` the larger distance to the
    minimum or maximum over seeds, `ci_low`, `ci_high` the bootstrap interval over images (see `published.estimate`),
    `change` the difference to the baseline, `seeds` their number. The name of the sets, joined by `+`, is the dataset.

    metrics, published: rows as `summary.read_metrics` gives them.
    """
    find = Summary(metrics)
    dataset = MEAN_OF.join(each.dataset for each in averaged)
    rows, estimates = [], []
    for backbone in backbones:
        of_backbone = [_seed_means(metrics, backbone, variant, averaged) for variant in (baseline, *variants)]
        for variant, means in zip((baseline, *variants), of_backbone, strict=True):
            median = means.median()
            around = estimate(find, _METRIC, averaged, backbone, "head", variant)
            spread = max(median - means.min(), means.max() - median)
            ours = Estimate(median, spread, median - (around.value - around.low), median + (around.high - around.value))
            estimates.append(ours)
            rows.append(
                {
                    "backbone": backbone,
                    "variant": variant,
                    "dataset": dataset,
                    "split": averaged[0].split,
                    "seeds": len(means),
                    "auroc_correct": ours.value,
                    "spread": ours.spread,
                    "ci_low": ours.low,
                    "ci_high": ours.high,
                    "change": median - of_backbone[0].median(),
                }
            )
    # The published means are over the same three sets in some order.
    table = pd.DataFrame(rows)
    if published is not None:
        names = sorted(each.dataset for each in averaged)
        same = published["dataset"].map(lambda name: sorted(name.split(MEAN_OF)) == names)
        published = published.assign(dataset=published["dataset"].mask(same, dataset))
    return beside_published.beside(table, estimates, published, _METRIC)


def present(table: pd.DataFrame) -> Table:
    """Return the result of `build` ready to be written; what beats the baseline by more than both spreads is bold."""
    shown = pd.DataFrame(
        {
            "Backbone": table["backbone"],
            "Variant": table["variant"].str.replace("_", " "),
            "R-AUROC": [with_spread(*pair) for pair in table[["auroc_correct", "spread"]].to_numpy(float)],
            "95 % interval": [f"{low:.3f}–{high:.3f}" for low, high in table[["ci_low", "ci_high"]].to_numpy(float)],
            "Change": [signed(value) if value else "–" for value in table["change"]],
        }
    )
    if "published" in table:
        pairs = table[["published", "published_spread"]].to_numpy(float)
        shown["Published"] = [with_spread(*pair) for pair in pairs]
        shown["Difference"] = [signed(value) for value in table["difference"]]
        shown["Within"] = table["is_within_published"].map({True: "yes", False: "no"}).fillna("–")
    bold = pd.DataFrame(False, index=shown.index, columns=shown.columns)
    reference = table.groupby("backbone")["spread"].transform("first")
    bold["R-AUROC"] = table["change"] > table["spread"] + reference
    datasets = table["dataset"].iloc[0].split(MEAN_OF)
    caption = (
        f"What single changes of the recipe do to the R-AUROC, averaged over {', '.join(datasets)}. The first row is "
        f"the recipe itself. Median over {table['seeds'].max()} seeds ± the larger distance to the minimum or maximum; "
        "the interval is a percentile bootstrap over images, combined over the datasets. Bold: better than the "
        "recipe by more than both spreads."
    )
    groups = 1
    if table["backbone"].nunique() == 1:
        shown, bold, groups = shown.drop(columns="Backbone"), bold.drop(columns="Backbone"), 0
    return Table(values=table, shown=shown, bold=bold, caption=caption, groups=groups)


def _seed_means(metrics: pd.DataFrame, backbone: str, variant: str, averaged: Sequence[EvaluationSet]) -> pd.Series:
    """Return the mean over the sets of each seed's R-AUROC."""
    rows = metrics[
        (metrics["metric"] == _METRIC)
        & (metrics["method"] == "head")
        & (metrics["backbone"] == backbone)
        & (metrics["variant"] == variant)
    ]
    is_averaged = [pair in set(averaged) for pair in rows[["dataset", "split"]].itertuples(index=False, name=None)]
    return rows[is_averaged].groupby("seed")["value"].mean()
