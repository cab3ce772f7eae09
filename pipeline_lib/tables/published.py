"""Our numbers beside those printed in the papers, wherever backbone, method, variant, set and metric match."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from pipeline_lib.tables.render import Table, number
from pipeline_lib.tables.summary import EvaluationSet, Summary

KEY = ["backbone", "method", "variant", "dataset", "split", "metric"]
MEAN_OF = "+"  # a dataset called a+b+c is the plain mean over a, b and c
_METHODS = {"head": "head", "class_entropy": "class entropy", "representation": "–"}


class Estimate(NamedTuple):
    """A median over seeds with the spread over seeds and the ends of its bootstrap interval over images."""

    value: float
    spread: float
    low: float
    high: float


def estimate(
    find: Summary, metric: str, sets: Sequence[EvaluationSet], backbone: str, method: str, variant: str
) -> Estimate:
    """Return our value of a metric on one set, or its mean over several.

    A mean's value is the mean of the medians, its spread the mean of the spreads (an upper bound: no seed need be
    the extreme one on all sets); the half-widths h_i of the intervals of k independent sets combine to
    sqrt(sum h_i^2) / k. All NaN where a set was not evaluated; the interval is NaN where it was not estimated.
    """

    def values(name: str, statistic: str = "median") -> list[float]:
        return [find(name, each, backbone, method, variant, statistic) for each in sets]

    medians, spreads = values(metric), values(metric, "spread")
    value = sum(medians) / len(sets)
    below = [median - low for median, low in zip(medians, values(f"{metric}_ci_low"), strict=True)]
    above = [high - median for median, high in zip(medians, values(f"{metric}_ci_high"), strict=True)]
    low, high = (math.sqrt(sum(width**2 for width in widths)) / len(sets) for widths in (below, above))
    return Estimate(value, sum(spreads) / len(sets), value - low, value + high)


def lies_within(ours: Estimate, published: float, published_spread: float) -> bool:
    """Return whether ours lies within the published spread widened by our bootstrap interval.

    That is, whether our interval and [published - spread, published + spread] overlap. A spread that isn't printed, and
    an interval that wasn't estimated, count as zero.
    """
    spread = 0.0 if math.isnan(published_spread) else published_spread
    low, high = (ours.value if math.isnan(end) else end for end in (ours.low, ours.high))
    return low <= published + spread and high >= published - spread


def beside(table: pd.DataFrame, estimates: list[Estimate], published: pd.DataFrame | None, metric: str) -> pd.DataFrame:
    """Add `published`, `published_spread`, `difference` and `is_within_published` to rows of head results.

    table: columns backbone, variant, dataset, split. estimates: ours, row by row. published: rows of
    `workflow/published`. A table without any counterpart comes back as it is.
    """
    if published is None:
        return table
    is_median = (published["metric"] == metric) & (published["method"] == "head") & published["seed"].isna()
    key = ["backbone", "variant", "dataset", "split"]
    theirs = published.loc[is_median, [*key, "value", "spread"]].rename(
        columns={"value": "published", "spread": "published_spread"}
    )
    merged = table.merge(theirs, on=key, how="left", validate="one_to_one")
    if merged["published"].isna().all():
        return table
    rows = list(zip(estimates, merged["published"], merged["published_spread"], strict=True))
    return merged.assign(
        difference=[ours.value - value for ours, value, _ in rows],
        is_within_published=[
            None if math.isnan(value) else lies_within(ours, value, spread) for ours, value, spread in rows
        ],
    )


def build(metrics: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Return one row per published median that this run has a counterpart of.

    metrics, published: rows as `summary.read_metrics` gives them.
    """
    find = Summary(metrics)
    rows = []
    for theirs in published[published["seed"].isna()].to_dict("records"):
        sets = [EvaluationSet(dataset, theirs["split"]) for dataset in theirs["dataset"].split(MEAN_OF)]
        ours = estimate(find, theirs["metric"], sets, theirs["backbone"], theirs["method"], theirs["variant"])
        if math.isnan(ours.value):
            continue
        rows.append(
            {
                **{column: theirs[column] for column in KEY},
                "ours": ours.value,
                "ours_spread": ours.spread,
                "ours_low": ours.low,
                "ours_high": ours.high,
                "published": theirs["value"],
                "published_spread": theirs["spread"],
                "difference": ours.value - theirs["value"],
                "is_within_published": lies_within(ours, theirs["value"], theirs["spread"]),
                "source": theirs["source"],
            }
        )
    columns = [*KEY, "ours", "ours_spread", "ours_low", "ours_high", "published", "published_spread"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "is_within_published", "source"])


def present(table: pd.DataFrame) -> Table:
    """Return the result of `build` ready to be written."""
    shown = pd.DataFrame(
        {
            "Backbone": table["backbone"],
            "Method": [_METHODS.get(name, name) for name in table["method"]],
            "Variant": table["variant"].replace("", "–"),
            "Dataset": table["dataset"],
            "Metric": table["metric"],
            "Ours": [with_spread(*pair) for pair in table[["ours", "ours_spread"]].to_numpy(float)],
            "Published": [with_spread(*pair) for pair in table[["published", "published_spread"]].to_numpy(float)],
            "Difference": [signed(value) for value in table["difference"]],
            "Within": ["yes" if value else "no" for value in table["is_within_published"]],
        }
    )
    if table.empty:
        caption = (
            "No published number matches this run: none of its backbones and datasets has the name of one in the "
            "papers. workflow/published lists all that are known; workflow/published/README.md explains their names."
        )
    else:
        matches = int(table["is_within_published"].sum())
        caption = (
            f"Every published number that this run reproduces. Within: our bootstrap interval over images overlaps "
            f"the published value ± its spread over seeds; {matches} of {len(table)} do."
        )
    bold = pd.DataFrame(False, index=shown.index, columns=shown.columns)
    return Table(values=table, shown=shown, bold=bold, caption=caption, groups=1)


def with_spread(value: float, spread: float) -> str:
    """Return a value with its spread over seeds, where there is one."""
    return number(value) if math.isnan(value) or math.isnan(spread) else f"{number(value)} ± {number(spread)}"


def signed(value: float) -> str:
    """Return a difference with its sign, a real minus for a negative one."""
    return number(value) if math.isnan(value) else f"{value:+.3f}".replace("-", "−")
