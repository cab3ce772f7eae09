"""Every number printed in the paper that this run has a counterpart of.

That is, of the same dataset, split and metric: ours, and what the paper prints for its own model. Where ours is that
model, also the difference, and whether our bootstrap interval overlaps the published value and its spread over seeds.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline_lib.metrics.found import components, label
from pipeline_lib.tables.render import NOTHING, Table, signed, with_spread, with_spreads
from pipeline_lib.tables.spec import SetsSpec
from pipeline_lib.tables.summary import KEY, MEAN, METHODS, EvaluationSet, Summary

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.config.config import Config

LABEL, PAPER = "ours beside the published numbers", ""
PUBLISHED = "pretrained_uncertainties"
FOLDER = Path(__file__).parents[2] / "workflow" / "published"
MEAN_OF = "+"  # a dataset called a+b+c is the plain mean over a, b and c
RECIPE = "default"  # the published variant that is the paper's recipe
_MODELS = {"vit": "ViT", "resnet50": "ResNet-50", "imagenet1k": "(ImageNet-1k)"}


class Spec(SetsSpec):
    """What is compared: every backbone and variant on every set."""

    backbones: tuple[str, ...]
    variants: tuple[str, ...]


def wanted(config: Config) -> bool:
    """Return whether a number was published for one of a config's sets, or for a mean over some of them."""
    ours = {EvaluationSet(entry.dataset, entry.split) for entry in config.evaluation_sets}
    path = FOLDER / f"{PUBLISHED}.csv"
    if not path.exists():  # of a library without its workflow
        return False
    with path.open(encoding="utf-8", newline="") as file:
        return any(ours.issuperset(parts(row["dataset"], row["split"])) for row in csv.DictReader(file))


def plugins(config: Config) -> list[str]:
    """Return the components that are chosen by name: the metrics, which say how they are called."""
    return components()


def model(backbone: str) -> str:
    """Return what readers call a published model: `vit_base_imagenet1k` is ViT-Base (ImageNet-1k)."""
    name, *more = backbone.split("_")
    words = [_MODELS.get(word, word.capitalize()) for word in more]
    return "-".join([_MODELS.get(name, name), *words]).replace("-(", " (")


class Counterpart(NamedTuple):
    """A published median: of which model, its value and its spread over seeds (NaN: not printed)."""

    backbone: str
    value: float
    spread: float


class Counterparts:
    """Quick look-up of what was published for a dataset and split, whatever the backbone.

    published: rows of `workflow/published`, or None.
    """

    def __init__(self, published: pd.DataFrame | None) -> None:
        self._known: dict[tuple[str, ...], list[Counterpart]] = {}
        for row in () if published is None else published[published["seed"].isna()].to_dict("records"):
            key = (row["metric"], row["method"], row["variant"], *_key(row["dataset"], row["split"]))
            self._known.setdefault(key, []).append(Counterpart(row["backbone"], row["value"], row["spread"]))

    def __call__(
        self, metric: str, dataset: str, split: str, backbone: str, method: str = "head", variant: str = RECIPE
    ) -> Counterpart | None:
        """Return the published median: of the backbone of this name, else of the first model that has one.

        dataset: the sets of a mean, joined by `+`, stand in any order.
        """
        known = self._known.get((metric, method, variant, *_key(dataset, split)), [])
        return next((found for found in known if found.backbone == backbone), known[0] if known else None)


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


def beside(
    table: pd.DataFrame,
    estimates: list[Estimate],
    published: pd.DataFrame | None,
    metric: str,
    same_variant: bool = False,
) -> pd.DataFrame:
    """Add what was published to rows of head results: `published`, `published_spread` and `published_model`.

    Where the backbone, and the variant, is the published one, also the `difference` and `is_within_published`.
    A table without any counterpart comes back as it is.

    table: columns backbone, variant, dataset, split. estimates: ours, row by row. published: rows of
    `workflow/published`. same_variant: a row is compared with the variant of its name; else with the paper's recipe.
    """
    import pandas as pd

    find = Counterparts(published)
    rows = []
    for row, ours in zip(table.to_dict("records"), estimates, strict=True):
        variants = [row["variant"]] if same_variant else [row["variant"], RECIPE]
        keys = (metric, row["dataset"], row["split"], row["backbone"], "head")
        found = next((found for variant in variants if (found := find(*keys, variant))), None)
        theirs = {} if found is None else _compared(ours, found, found.backbone == row["backbone"])
        rows.append(theirs)
    if not any(rows):
        return table
    columns = [column for column in _COMPARED if any(column in row for row in rows)]
    return pd.concat([table, pd.DataFrame(rows, columns=columns, index=table.index)], axis=1)


_COMPARED = ("published", "published_spread", "published_model", "difference", "is_within_published")


def _compared(ours: Estimate, theirs: Counterpart, is_same: bool) -> dict[str, Any]:
    shown = dict(zip(_COMPARED, (theirs.value, theirs.spread, model(theirs.backbone)), strict=False))
    if not is_same or math.isnan(ours.value):
        return shown
    is_within = lies_within(ours, theirs.value, theirs.spread)
    return shown | {"difference": ours.value - theirs.value, "is_within_published": is_within}


def published_columns(table: pd.DataFrame) -> dict[str, Any]:
    """Return what a reader sees of the columns of `beside`, by heading; nothing where the table has none."""
    if "published" not in table:
        return {}
    models = table["published_model"].dropna().unique()
    shown = with_spreads(table, "published", "published_spread")
    if len(models) == 1:
        columns: dict[str, Any] = {f"Published: {models[0]}": shown}
    else:
        named = zip(table["published_model"], shown, strict=True)
        columns = {"Published": [text if text == NOTHING else f"{name} {text}" for name, text in named]}
    return columns | _differences(table) if "difference" in table else columns


def _differences(table: pd.DataFrame) -> dict[str, Any]:
    return {
        "Difference": table["difference"].astype(float).map(signed),
        "Within": table["is_within_published"].map({True: "yes", False: "no"}).fillna(NOTHING),
    }


def build(spec: Spec, metrics: pd.DataFrame, published: pd.DataFrame | None) -> pd.DataFrame:
    """Return one row per published median and backbone that has a counterpart of it.

    The backbone of the published name where the run has it, else each; likewise the variant, where that of the paper's
    recipe meets the run's first one.

    metrics, published: rows as `summary.read_metrics` gives them.
    """
    import pandas as pd

    assert published is not None, "the job reads the file that is named in PUBLISHED"
    find = Summary(metrics)
    rows = []
    for _, theirs in published[published["seed"].isna()].iterrows():
        is_ours = theirs["backbone"] in spec.backbones
        variant = theirs["variant"]
        if variant == RECIPE and variant not in spec.variants:
            variant = spec.variants[0]
        sets = _sets_of(theirs, spec, published)
        counterpart = Counterpart(theirs["backbone"], theirs["value"], theirs["spread"])
        for backbone in [theirs["backbone"]] if is_ours else spec.backbones:
            ours = estimate(find, theirs["metric"], sets, backbone, theirs["method"], variant)
            if not math.isnan(ours.value):
                rows.append(
                    {
                        **{column: theirs[column] for column in KEY},
                        "backbone": backbone,
                        "variant": variant,
                        **{name: getattr(ours, name) for name in Estimate._fields},
                        **dict.fromkeys(_COMPARED),
                        **_compared(ours, counterpart, is_ours),
                        "source": theirs["source"],
                    }
                )
    names = {"value": "ours", **{name: f"ours_{name}" for name in ("spread", "low", "high")}}
    return pd.DataFrame(rows, columns=[*KEY, *Estimate._fields, *_COMPARED, "source"]).rename(columns=names)


def present(table: pd.DataFrame, spec: Spec) -> Table:
    """Return the result of `build` ready to be written."""
    import pandas as pd

    labels = METHODS | {"representation": NOTHING}
    shown = {
        "Dataset": table["dataset"].str.replace(MEAN_OF, ", ").replace(MEAN.dataset, "the paper's unseen sets"),
        "Metric": table["metric"].map(label),
        "Method": [labels.get(name, name) for name in table["method"]],
        "Backbone": table["backbone"],
        "Ours": with_spreads(table, "ours", "ours_spread"),
        "Published": [
            f"{name} {with_spread(*pair)}"
            for name, *pair in table[["published_model", "published", "published_spread"]].to_numpy()
        ],
    }
    if table["difference"].notna().any():
        shown |= _differences(table)
    same = table["is_within_published"].dropna()
    caption = "Every published number whose dataset, split and metric this run has too."
    if len(same):
        caption += (
            " Difference and within, where the backbone is the published one; within: our bootstrap interval (over "
            f"classes, or images where a set has few) overlaps the published value ± its spread over seeds; "
            f"{int(same.sum())} of {len(same)} do."
        )
    return Table(table, pd.DataFrame(shown), pd.DataFrame(index=table.index), caption, groups=3)


def _sets_of(theirs: pd.Series[Any], spec: Spec, published: pd.DataFrame) -> list[EvaluationSet]:
    """Return the sets whose mean a published number is; `downstream` stands for all unseen ones of its model."""
    if theirs["dataset"] != MEAN.dataset:
        return parts(theirs["dataset"], theirs["split"])
    of_model = published[(published["backbone"] == theirs["backbone"]) & (published["metric"] == "auroc_correct")]
    pairs = of_model[["dataset", "split"]].drop_duplicates().itertuples(index=False, name=None)
    return [pair for pair in map(EvaluationSet._make, pairs) if MEAN_OF not in pair.dataset and pair != spec.upstream]


def parts(dataset: str, split: str) -> list[EvaluationSet]:
    """Return the sets that a published number is about: several of a mean."""
    return [EvaluationSet(name, split) for name in dataset.split(MEAN_OF)]


def _key(dataset: str, split: str) -> tuple[str, str]:
    return MEAN_OF.join(sorted(dataset.split(MEAN_OF))), split
