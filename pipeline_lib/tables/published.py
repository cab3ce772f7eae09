"""Every number printed in the paper that this run has a counterpart of.

That is, where backbone, method, variant, dataset and metric have the same names: ours, theirs, the difference, and
whether our bootstrap interval overlaps the published value and its spread over seeds. Empty where no backbone and
dataset has a published name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline_lib.tables.render import NOTHING, Table, signed, with_spreads
from pipeline_lib.tables.spec import ViewSpec
from pipeline_lib.tables.summary import KEY, METHODS, EvaluationSet, Summary

if TYPE_CHECKING:
    import pandas as pd

LABEL, PAPER = "ours beside the published numbers", ""
PUBLISHED = "pretrained_uncertainties"
MEAN_OF = "+"  # a dataset called a+b+c is the plain mean over a, b and c


class Spec(ViewSpec):
    """Nothing: all that was measured is shown."""


class Estimate(NamedTuple):
    """A median over seeds with the spread over seeds and the ends of its bootstrap interval."""

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
        return [find(name, pair, backbone, method, variant, statistic) for pair in sets]

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
    import pandas as pd

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
    merged["difference"] = [ours.value - value for ours, value, _ in rows]
    merged["is_within_published"] = pd.Series(
        [None if math.isnan(value) else lies_within(ours, value, spread) for ours, value, spread in rows], dtype=object
    )
    return merged


def published_columns(table: pd.DataFrame) -> dict[str, Any]:
    """Return what a reader sees of the columns of `beside`, by heading; nothing where the table has none."""
    if "published" not in table:
        return {}
    return {
        "Published": with_spreads(table, "published", "published_spread"),
        "Difference": table["difference"].map(signed),
        "Within": table["is_within_published"].map({True: "yes", False: "no"}).fillna(NOTHING),
    }


def build(spec: Spec, metrics: pd.DataFrame, published: pd.DataFrame | None) -> pd.DataFrame:
    """Return one row per published median that this run has a counterpart of.

    metrics, published: rows as `summary.read_metrics` gives them.
    """
    import pandas as pd

    find = Summary(metrics)
    rows = []
    for theirs in published[published["seed"].isna()].to_dict("records") if published is not None else ():
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


def present(table: pd.DataFrame, spec: Spec) -> Table:
    """Return the result of `build` ready to be written."""
    import pandas as pd

    labels = METHODS | {"representation": NOTHING}
    shown = pd.DataFrame(
        {
            "Backbone": table["backbone"],
            "Method": [labels.get(name, name) for name in table["method"]],
            "Variant": table["variant"].replace("", NOTHING),
            "Dataset": table["dataset"],
            "Metric": table["metric"],
            "Ours": with_spreads(table, "ours", "ours_spread"),
            **published_columns(table),
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
            "Every published number that this run reproduces. Within: our bootstrap interval (over classes, or images "
            f"where a set has few classes) overlaps the published value ± its spread over seeds; {matches} of "
            f"{len(table)} do."
        )
    return Table(table, shown, pd.DataFrame(index=shown.index), caption, groups=1)
