"""What is gained by answering only for images whose uncertainty is low.

The mean error over all shares of images that are kept (AURC), its excess over a perfect order, and the share that can
be kept at a stated Recall@1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.metrics.found import components, label
from pipeline_lib.tables.render import Table, number
from pipeline_lib.tables.spec import ViewSpec
from pipeline_lib.tables.summary import METHODS, OF_HEADS, EvaluationSet, Summary, row_names

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_lib.config.config import Config

LABEL, PAPER = "risk and coverage", ""
_COVERAGE = "coverage_at_r1_"


class Spec(ViewSpec):
    """What is shown: the first variant on every backbone."""

    downstream: tuple[EvaluationSet, ...]
    backbones: tuple[str, ...]
    variant: str


def plugins(config: Config) -> list[str]:
    """Return the components that are chosen by name: the metrics."""
    return components("metrics")


def build(spec: Spec, metrics: pd.DataFrame, published: pd.DataFrame | None) -> pd.DataFrame:
    """Return one row per backbone, set and method: Recall@1, AURC, E-AURC, AUGRC, coverage at each target Recall@1.

    Medians over seeds. The baselines of `METHODS` stand beside the heads of one variant.

    metrics: rows as `summary.read_metrics` gives them.
    """
    import pandas as pd

    find = Summary(metrics)
    targets = sorted(metric for metric in metrics["metric"].unique() if metric.startswith(_COVERAGE))
    rows = []
    for backbone in spec.backbones:
        for pair in spec.downstream:
            for method in METHODS:
                of = spec.variant if method in OF_HEADS else ""
                rows.append(
                    {
                        "backbone": backbone,
                        "dataset": pair.dataset,
                        "split": pair.split,
                        "method": method,
                        "variant": of,
                        "r1": find("r1", pair, backbone, "representation"),
                        **{
                            name: find(name, pair, backbone, method, of)
                            for name in ("aurc", "e_aurc", "augrc", *targets)
                        },
                    }
                )
    return pd.DataFrame(rows)


def present(table: pd.DataFrame, spec: Spec) -> Table:
    """Return the result of `build` ready to be written; the best method per dataset is bold."""
    import pandas as pd

    shown = pd.DataFrame(
        {
            "Backbone": table["backbone"],
            "Dataset": row_names(table),
            "Method": table["method"].map(METHODS),
            "R@1": table["r1"].map(number),
        }
    )
    bold = pd.DataFrame(index=shown.index)
    for name in ["aurc", "e_aurc", "augrc", *(column for column in table.columns if column.startswith(_COVERAGE))]:
        heading = label(name)
        shown[heading] = table[name].map(number)
        rounded = table[name].round(3)
        of_dataset = rounded.groupby([table["backbone"], table["dataset"], table["split"]])
        if name.startswith(_COVERAGE):
            bold[heading] = rounded.eq(of_dataset.transform("max")) & (rounded > 0)
        else:
            bold[heading] = rounded.eq(of_dataset.transform("min"))
    caption = (
        "Answer only for images whose uncertainty is low. AURC: mean 1-NN error over all shares of images kept, the "
        "most certain first (lower is better). E-AURC: the same less that of a perfect order. AUGRC: "
        "mean over the same shares of the part of all images that is kept and wrong. Coverage: the largest "
        "share of images that can be kept at the stated Recall@1. Medians over seeds. Bold: the best method."
    )
    return Table(table, shown, bold, caption, groups=2)
