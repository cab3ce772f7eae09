"""Table 3 of the paper: the R-AUROC, averaged over a few unseen datasets, after one change of the recipe.

Of the loss, the head, the training images, the optimiser or the schedule. Where the paper has the same backbone, change
and datasets, its number stands beside ours.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self

from pipeline_lib.tables.published import MEAN_OF, Estimate, beside, estimate, published_columns
from pipeline_lib.tables.render import (
    NOTHING,
    Table,
    interval_heading,
    number,
    number_of_seeds,
    signed,
    with_spreads,
    without_constant,
)
from pipeline_lib.tables.spec import ViewSpec
from pipeline_lib.tables.summary import EvaluationSet, Summary, on_sets, resampled

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.config.config import Config

LABEL, PAPER = "ablations", "Table 3"
PUBLISHED = "pretrained_uncertainties"
_METRIC = "auroc_correct"


class Spec(ViewSpec):
    """What is shown."""

    averaged: tuple[EvaluationSet, ...]
    backbones: tuple[str, ...]
    baseline: str
    variants: tuple[str, ...]
    confidence: float

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the spec."""
        ablations = config.ablations
        assert ablations is not None, "a config without ablations doesn't want the table"
        variants = tuple(ablations.variants)
        return cls.with_common(config, backbones=ablations.backbones, baseline=ablations.baseline, variants=variants)


def wanted(config: Config) -> bool:
    """Return whether a config has the table."""
    return config.ablations is not None


def build(spec: Spec, metrics: pd.DataFrame, published: pd.DataFrame | None) -> pd.DataFrame:
    """Return one row per backbone and variant, the baseline first: R-AUROC averaged over some sets.

    Columns: `auroc_correct` is the median over seeds of the mean over the sets, `spread` the larger distance to the
    minimum or maximum over seeds, `ci_low`, `ci_high` the bootstrap interval (see `published.estimate`), `change` the
    difference to the baseline, `seeds` their number, `resampled_classes` how many classes the intervals draw from on
    the set with the fewest (0: they draw images). The name of the sets, joined by `+`, is the dataset.

    metrics, published: rows as `summary.read_metrics` gives them.
    """
    import pandas as pd

    find = Summary(metrics)
    heads = on_sets(metrics[(metrics["metric"] == _METRIC) & (metrics["method"] == "head")], spec.averaged)
    dataset = MEAN_OF.join(pair.dataset for pair in spec.averaged)
    rows, estimates = [], []
    for backbone in spec.backbones:
        of_backbone = heads[heads["backbone"] == backbone]
        for variant in (spec.baseline, *spec.variants):
            # Undefined on one of the sets, as where every neighbour is right: no mean of the others takes its place.
            means = of_backbone[of_backbone["variant"] == variant].groupby("seed")["value"].mean(skipna=False)
            median = means.median()
            around = estimate(find, _METRIC, spec.averaged, backbone, "head", variant)
            spread = max(median - means.min(), means.max() - median)
            ours = Estimate(median, spread, median - (around.value - around.low), median + (around.high - around.value))
            estimates.append(ours)
            rows.append(
                {
                    "backbone": backbone,
                    "variant": variant,
                    "dataset": dataset,
                    "split": spec.averaged[0].split,
                    "seeds": len(means),
                    "auroc_correct": ours.value,
                    "spread": ours.spread,
                    "ci_low": ours.low,
                    "ci_high": ours.high,
                    "resampled_classes": min(
                        find("resampled_classes", pair, backbone, "representation") for pair in spec.averaged
                    ),
                }
            )
    table = pd.DataFrame(rows)
    table["change"] = table["auroc_correct"] - table.groupby("backbone")["auroc_correct"].transform(
        lambda values: values.iloc[0]
    )
    if len({pair.split for pair in spec.averaged}) > 1:
        return table  # no mean over different splits was published
    return beside(table, estimates, published, _METRIC, same_variant=True)


def present(table: pd.DataFrame, spec: Spec) -> Table:
    """Return the result of `build` ready to be written; what beats the baseline by more than both spreads is bold."""
    import pandas as pd

    shown = pd.DataFrame(
        {
            "Backbone": table["backbone"],
            "Variant": table["variant"].str.replace("_", " "),
            "R-AUROC": with_spreads(table, "auroc_correct", "spread"),
            interval_heading(spec.confidence): [
                NOTHING if math.isnan(low + high) else f"{number(low)}–{number(high)}"
                for low, high in table[["ci_low", "ci_high"]].to_numpy(float)
            ],
            "Change": [signed(value) if value else NOTHING for value in table["change"]],
            **published_columns(table),
        }
    )
    of_baseline = table.groupby("backbone")["spread"].transform("first")
    bold = pd.DataFrame({"R-AUROC": table["change"] > table["spread"] + of_baseline})
    datasets = table["dataset"].iloc[0].split(MEAN_OF)
    caption = (
        f"What single changes of the recipe do to the R-AUROC, averaged over {', '.join(datasets)}. The first row is "
        f"the recipe itself. Median over {number_of_seeds(table)} ± the larger distance to the minimum or maximum; "
        f"the interval is a percentile bootstrap {resampled(table)}, combined over the datasets. Bold: better than the "
        "recipe by more than both spreads."
    )
    shown, groups = without_constant(shown, "Backbone", 1)
    return Table(table, shown, bold, caption, groups)
