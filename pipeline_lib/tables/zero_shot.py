"""R-AUROC of the uncertainty head on the upstream dataset (first row) and on every dataset it never saw.

As the median over seeds ± the larger distance to the minimum or maximum. The interval is a percentile bootstrap over
classes, over images where a set has few classes. Beside it the same measure for uncertainties that need no training:
the entropy of the classifier's prediction, the norm of the representation and the distance to the nearest neighbour.
R@1 is Recall@1 of the frozen backbone; the last row is the plain mean over the unseen datasets. The columns with
published values appear where the paper reports the same backbone, variant and dataset.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline_lib.tables.published import Estimate, beside, published_columns
from pipeline_lib.tables.render import (
    NOTHING,
    Table,
    count,
    interval_heading,
    number,
    number_of_seeds,
    signed,
    with_spreads,
    without_constant,
)
from pipeline_lib.tables.spec import SetsSpec
from pipeline_lib.tables.summary import MEAN, METHODS, OF_HEADS, EvaluationSet, Summary, resampled, role, row_names

if TYPE_CHECKING:
    import pandas as pd

LABEL, PAPER = "zero-shot R-AUROC", ""
PUBLISHED = "pretrained_uncertainties"
# What the differences that are shown are between: a method, and what it is compared with.
_DIFFERENCES = {"head": "minus_class_entropy", "combination": "minus_knn_distance"}
_OF_REPRESENTATION = ("r1", "r1_ci_low", "r1_ci_high", "resampled_classes")
HEADINGS = {name: label[0].upper() + label[1:] for name, label in METHODS.items()}


class Spec(SetsSpec):
    """What is shown."""

    backbones: tuple[str, ...]
    variants: tuple[str, ...]
    confidence: float


def build(spec: Spec, metrics: pd.DataFrame, published: pd.DataFrame | None) -> pd.DataFrame:
    """Return one row per backbone, variant and set: the upstream one first, the downstream mean last.

    Columns: `head` is the median R-AUROC over seeds, `head_spread` the larger distance to the minimum or maximum,
    `head_ci_low`, `head_ci_high` the bootstrap interval and `within_classes` the R-AUROC within classes (medians over
    seeds), then what needs no head, and `combination`, the head together with the 1-NN distance (median over seeds);
    the head's R-AUROC less the class entropy's and that of the combination less the distance's, with their paired
    bootstrap intervals; Recall@1 with its interval; and `resampled_classes`, how many classes the intervals draw from
    (0: they draw images). Where at least one row has a published counterpart (same dataset and split), the columns of
    `published.beside` follow.

    metrics, published: rows as `summary.read_metrics` gives them.
    """
    import pandas as pd

    find = Summary(metrics)
    table = pd.DataFrame(
        [
            _row(find, shown, spec.upstream, backbone, variant)
            for backbone in spec.backbones
            for variant in spec.variants
            for shown in [*spec.sets, MEAN]
        ]
    )
    table[["n", "seeds"]] = table[["n", "seeds"]].astype("Int64")
    columns = ["head", "head_spread", "head_ci_low", "head_ci_high"]
    estimates = [Estimate(*row) for row in table[columns].to_numpy(float)]
    return beside(table, estimates, published, "auroc_correct")


def _row(
    find: Summary, shown: EvaluationSet, upstream: EvaluationSet, backbone: str, variant: str
) -> dict[str, str | float]:
    def head(metric: str, statistic: str = "median") -> float:
        return find(metric, shown, backbone, "head", variant, statistic)

    return {
        "backbone": backbone,
        "variant": variant,
        "role": role(shown, upstream),
        "dataset": shown.dataset,
        "split": shown.split,
        "n": head("auroc_correct", "n"),
        "seeds": head("auroc_correct", "seeds"),
        "head": head("auroc_correct"),
        "head_spread": head("auroc_correct", "spread"),
        "head_ci_low": head("auroc_correct_ci_low"),
        "head_ci_high": head("auroc_correct_ci_high"),
        "within_classes": head("auroc_within_classes"),
        **{
            method: find("auroc_correct", shown, backbone, method, variant if method in OF_HEADS else "")
            for method in METHODS
            if method != "head"
        },
        **{
            f"{difference}{end}": find(f"auroc_correct_{difference}{end}", shown, backbone, method, variant)
            for method, difference in _DIFFERENCES.items()
            for end in ("", "_ci_low", "_ci_high")
        },
        **{metric: find(metric, shown, backbone, "representation") for metric in _OF_REPRESENTATION},
    }


def present(table: pd.DataFrame, spec: Spec) -> Table:
    """Return the result of `build` ready to be written; the best method of each row is bold."""
    import pandas as pd

    is_upstream = table["role"] == "upstream"
    shown = pd.DataFrame(
        {
            "Backbone": table["backbone"],
            "Variant": table["variant"],
            "Dataset": row_names(table) + is_upstream.map({True: " (upstream)", False: ""}),
            "n": table["n"].astype(float).where(table["role"] != "mean").map(count),
            "R@1": table["r1"].map(number),
            HEADINGS["head"]: with_spreads(table, "head", "head_spread"),
            interval_heading(spec.confidence): _intervals(table, "head", number),
            "within classes": table["within_classes"].map(number),
            **{heading: table[method].map(number) for method, heading in HEADINGS.items() if method != "head"},
            "Head − entropy": table["minus_class_entropy"].map(signed),
            f"its {interval_heading(spec.confidence)}": _intervals(table, "minus_class_entropy", signed),
            "Distance + head − distance": table["minus_knn_distance"].map(signed),
            "its interval": _intervals(table, "minus_knn_distance", signed),
            **published_columns(table),
        }
    )
    measured = table[list(METHODS)].round(3)  # as shown: what looks equal is equally good
    bold = pd.DataFrame({HEADINGS[method]: measured[method].eq(measured.max(axis=1)) for method in METHODS})
    shown, groups = without_constant(shown, "Variant", 2)
    caption = (
        "R-AUROC: how well an uncertainty predicts that an image's nearest neighbour has another label (0.5 = chance). "
        "Within classes: of pairs of one class alone. 1-NN distance: to the nearest other image; distance + head: "
        "z(distance) + max(0, ρ) z(u), ρ their rank correlation on the set itself; neither needs a label. "
        f"Median over {number_of_seeds(table)} ± the larger distance to the minimum or maximum; the "
        f"intervals are percentile bootstraps {resampled(table)}, those of differences paired (the same resamples for "
        "both). Downstream datasets were not seen in training. Bold: the best method of the row."
    )
    return Table(table, shown, bold, caption, groups)


def _intervals(table: pd.DataFrame, quantity: str, shown: Callable[[float], str]) -> list[str]:
    ends = table[[f"{quantity}_ci_low", f"{quantity}_ci_high"]].to_numpy(float)
    return [NOTHING if math.isnan(low) or math.isnan(high) else f"{shown(low)} to {shown(high)}" for low, high in ends]
