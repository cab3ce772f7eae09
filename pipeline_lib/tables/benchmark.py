"""The table of the URL benchmark: every method on every architecture, averaged over unseen sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from pipeline_lib.tables.published import MEAN_OF, signed, with_spread
from pipeline_lib.tables.render import Table
from pipeline_lib.tables.summary import EvaluationSet

OWN = "own_uncertainty"  # metric rows of a method's own uncertainty
# Metric -> (the method whose rows hold it: None = the representation's; heading).
METRICS = {
    "auroc_correct": (OWN, "R-AUROC"),
    "r1": (None, "R@1"),
    "croppedHasBiggerUnc": (OWN, "Crop has larger u"),
    "rcorr_entropy": (OWN, "Corr. with people"),
    "auroc_ood": (OWN, "OOD AUROC"),
    "auroc_correct_mixed": (OWN, "R-AUROC, mixed"),
}
# Each published metric is that of the model chosen by it.
_PUBLISHED_VARIANT = {"auroc_correct": "", "r1": "selected_by_r1"}


class Entry(NamedTuple):
    """One row: an architecture, a method, and the backbone of each seed.

    head: None for a method of the benchmark; the variant of a pretrained head, all of whose seeds are on one backbone.
    selection: the metric that a method's models were chosen by.
    """

    architecture: str
    method: str
    backbones: Mapping[int, str]
    head: str | None = None
    selection: str | None = None


def seed_means(metrics: pd.DataFrame, entry: Entry, averaged: Sequence[EvaluationSet]) -> pd.DataFrame:
    """Return one row per seed and one column per metric of `METRICS`: the plain mean over those sets that have it.

    metrics: rows as `summary.read_metrics` gives them.
    """
    sets = set(averaged)
    rows = metrics[[pair in sets for pair in metrics[["dataset", "split"]].itertuples(index=False, name=None)]]
    found = {}
    for seed, backbone in entry.backbones.items():
        mine = rows[rows["backbone"] == backbone]
        own = mine[mine["method"] == OWN]
        if entry.head is not None:
            own = mine[(mine["method"] == "head") & (mine["variant"] == entry.head) & (mine["seed"] == seed)]
        found[seed] = {
            metric: (mine[mine["method"] == "representation"] if method is None else own)
            .loc[lambda part, metric=metric: part["metric"] == metric, "value"]
            .mean()
            for metric, (method, _) in METRICS.items()
        }
    return pd.DataFrame.from_dict(found, orient="index", columns=list(METRICS))


def build(
    metrics: pd.DataFrame, published: pd.DataFrame | None, entries: Sequence[Entry], averaged: Sequence[EvaluationSet]
) -> pd.DataFrame:
    """Return one row per architecture and method: medians over seeds of the means over the sets, and their spreads.

    Columns architecture, method, dataset, seeds, and <metric>, <metric>_spread (NaN of one seed);
    `published_<metric>` for R-AUROC and R@1 where the paper prints a number for the architecture and method on the same
    sets, and `difference_<metric>` from it where our models were chosen by that metric, as the published ones were.

    metrics, published: rows as `summary.read_metrics` gives them.
    """
    names = sorted(each.dataset for each in averaged)
    rows = []
    for entry in entries:
        means = seed_means(metrics, entry, averaged)
        median = means.median()
        row = {"architecture": entry.architecture, "method": entry.method, "dataset": MEAN_OF.join(names)}
        row |= {"seeds": len(means)}
        for metric in METRICS:
            row[metric] = median[metric]
            largest = max(median[metric] - means[metric].min(), means[metric].max() - median[metric])
            row[f"{metric}_spread"] = largest if len(means) > 1 else float("nan")
        if published is not None and entry.head is None:
            row |= _published(published, entry, averaged)
            if (theirs := row.get(f"published_{entry.selection}")) is not None:
                row[f"difference_{entry.selection}"] = row[entry.selection] - theirs
        rows.append(row)
    return pd.DataFrame(rows)


def present(table: pd.DataFrame) -> Table:
    """Return the result of `build` ready to be written; the best R-AUROC and R@1 of each architecture are bold."""
    shown = pd.DataFrame({"Architecture": table["architecture"], "Method": table["method"].str.replace("_", " ")})
    bold = pd.DataFrame(False, index=table.index, columns=[heading for _, heading in METRICS.values()])
    for metric, (_, heading) in METRICS.items():
        if table[metric].isna().all():
            continue
        shown[heading] = [with_spread(*pair) for pair in table[[metric, f"{metric}_spread"]].to_numpy(float)]
        best = table[metric].round(3).groupby(table["architecture"]).transform("max")
        bold[heading] = (table[metric].round(3) == best) if metric in ("auroc_correct", "r1") else False
        if f"published_{metric}" in table:
            theirs = table[f"published_{metric}"]
            shown[f"{heading}, published"] = [with_spread(value, float("nan")) for value in theirs]
        if f"difference_{metric}" in table:
            shown[f"{heading}, difference"] = [signed(value) for value in table[f"difference_{metric}"]]
    bold = bold.reindex(columns=shown.columns, fill_value=False)
    seeds = int(table["seeds"].max())
    caption = (
        f"The methods of the URL benchmark, averaged over {', '.join(table['dataset'].iloc[0].split(MEAN_OF))}, which "
        f"no method has seen. Median over {seeds} seed{'s' if seeds != 1 else ''}"
        + (" ± the larger distance to the minimum or maximum" if seeds > 1 else "")
        + ". R-AUROC: how well a method's own uncertainty predicts that an image's nearest neighbour has another label "
        "(0.5 = chance). Bold: the best of an architecture."
    )
    if any(column.startswith("published_") for column in table):
        caption += (
            " Published: R-AUROC of the models chosen by R-AUROC, R@1 of those chosen by R@1. Differences: where ours "
            "were chosen by the same metric."
        )
    groups = 1
    if table["architecture"].nunique() == 1:
        shown, bold, groups = shown.drop(columns="Architecture"), bold.drop(columns="Architecture"), 0
    return Table(values=table, shown=shown, bold=bold, caption=caption, groups=groups)


def _published(published: pd.DataFrame, entry: Entry, averaged: Sequence[EvaluationSet]) -> dict[str, float]:
    """Return the printed numbers of a row, by column."""
    same = published[(published["backbone"] == entry.architecture) & (published["method"] == entry.method)]
    is_on_sets = [
        sorted(averaged) == sorted(EvaluationSet(name, split) for name in dataset.split(MEAN_OF))
        for dataset, split in same[["dataset", "split"]].itertuples(index=False, name=None)
    ]
    # As booleans, also of no row at all: an empty list would choose columns.
    same = same[pd.Series(is_on_sets, index=same.index, dtype=bool)]
    found = {}
    for metric, variant in _PUBLISHED_VARIANT.items():
        values = same.loc[(same["metric"] == metric) & (same["variant"] == variant), "value"]
        if len(values):
            found[f"published_{metric}"] = float(values.iloc[0])
    return found
