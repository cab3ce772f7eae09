"""What rejecting uncertain images buys: risk and coverage of every method on every dataset."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pipeline_lib.tables.all_metrics import METHODS
from pipeline_lib.tables.render import Table, number
from pipeline_lib.tables.summary import EvaluationSet, Summary, names

_COVERAGE = "coverage_at_r1_"


def build(
    metrics: pd.DataFrame, downstream: Sequence[EvaluationSet], backbones: Sequence[str], variant: str
) -> pd.DataFrame:
    """Return one row per backbone, set and method: Recall@1, AURC, E-AURC, coverage at each target Recall@1.

    Medians over seeds. The baselines of `METHODS` stand beside the heads of one variant.

    metrics: rows as `summary.read_metrics` gives them.
    """
    find = Summary(metrics)
    targets = sorted(metric for metric in metrics["metric"].unique() if metric.startswith(_COVERAGE))
    rows = []
    for backbone in backbones:
        for each in downstream:
            for method in METHODS:
                of = variant if method == "head" else ""
                rows.append(
                    {
                        "backbone": backbone,
                        "dataset": each.dataset,
                        "split": each.split,
                        "method": method,
                        "variant": of,
                        "r1": find("r1", each, backbone, "representation"),
                        **{name: find(name, each, backbone, method, of) for name in ("aurc", "e_aurc", *targets)},
                    }
                )
    return pd.DataFrame(rows)


def present(table: pd.DataFrame) -> Table:
    """Return the result of `build` ready to be written; the best method per dataset is bold."""
    label = names([EvaluationSet(*pair) for pair in table[["dataset", "split"]].drop_duplicates().to_numpy()])
    shown = pd.DataFrame(
        {
            "Backbone": table["backbone"],
            "Dataset": [label[EvaluationSet(*pair)] for pair in table[["dataset", "split"]].to_numpy()],
            "Method": table["method"].map(METHODS),
            "R@1": table["r1"].map(number),
            "AURC": table["aurc"].map(number),
            "E-AURC": table["e_aurc"].map(number),
        }
    )
    bold = pd.DataFrame(False, index=shown.index, columns=shown.columns)
    group = [table["backbone"], table["dataset"], table["split"]]
    for name, heading in (("aurc", "AURC"), ("e_aurc", "E-AURC")):
        rounded = table[name].round(3)
        bold[heading] = rounded.eq(rounded.groupby(group).transform("min"))
    for name in [column for column in table.columns if column.startswith(_COVERAGE)]:
        heading = f"Coverage at R@1 {float(name.removeprefix(_COVERAGE)):.0%}".replace("%", " %")
        shown[heading] = table[name].map(number)
        rounded = table[name].round(3)
        bold[heading] = rounded.eq(rounded.groupby(group).transform("max")) & (rounded > 0)
    caption = (
        "Answer only for images whose uncertainty is low. AURC: mean 1-NN error over all shares of images kept, the "
        "most certain first (lower is better). E-AURC: the same less that of a perfect order. Coverage: the largest "
        "share of images that can be kept at the stated Recall@1. Medians over seeds. Bold: the best method."
    )
    return Table(values=table, shown=shown, bold=bold, caption=caption, groups=2)
