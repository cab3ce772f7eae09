"""What the reference code's deviations change: each metric as defined, and as the reference computes it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pipeline_lib.tables.published import signed
from pipeline_lib.tables.render import Table, number
from pipeline_lib.tables.summary import EvaluationSet, Summary, names

# Metric as defined, as the reference computes it, and what the reference does.
SWITCHES = {
    "neighbour": ("r1", "reference_r1", "second hit of a top-2 search: of two equal images one finds itself"),
    "auroc": ("auroc_correct", "reference_auroc_correct", "float32 sigmoid of uncertainties outside [0, 1]"),
    "thresholds": (
        "error_1nn_clean_queries_global",
        "error_1nn_clean_queries",
        "the 10 % most uncertain queries of each true class are rejected, instead of all",
    ),
}


def build(
    metrics: pd.DataFrame, downstream: Sequence[EvaluationSet], backbones: Sequence[str], variant: str
) -> pd.DataFrame:
    """Return one row per switch, backbone and set: the value as defined, as in the reference, and the difference.

    Medians over seeds of the heads of one variant. metrics: rows as `summary.read_metrics` gives them.
    """
    find = Summary(metrics)
    rows = []
    for switch, (defined, reference, _) in SWITCHES.items():
        method, of = ("representation", "") if switch == "neighbour" else ("head", variant)
        for backbone in backbones:
            for each in downstream:
                ours, theirs = (find(metric, each, backbone, method, of) for metric in (defined, reference))
                rows.append(
                    {
                        "switch": switch,
                        "metric": defined,
                        "backbone": backbone,
                        "dataset": each.dataset,
                        "split": each.split,
                        "as_defined": ours,
                        "as_in_reference": theirs,
                        "difference": theirs - ours,
                    }
                )
    return pd.DataFrame(rows)


def present(table: pd.DataFrame) -> Table:
    """Return the result of `build` ready to be written."""
    label = names([EvaluationSet(*pair) for pair in table[["dataset", "split"]].drop_duplicates().to_numpy()])
    shown = pd.DataFrame(
        {
            "Metric": table["switch"].map(
                {"neighbour": "Recall@1", "auroc": "R-AUROC", "thresholds": "1-NN error, clean queries"}
            ),
            "Backbone": table["backbone"],
            "Dataset": [label[EvaluationSet(*pair)] for pair in table[["dataset", "split"]].to_numpy()],
            "As defined": table["as_defined"].map(number),
            "As in the reference": table["as_in_reference"].map(number),
            "Difference": [signed(value) for value in table["difference"]],
        }
    )
    bold = pd.DataFrame(False, index=shown.index, columns=shown.columns)
    bold["Difference"] = table["difference"].abs() >= 0.0005
    heading = dict(zip(table["switch"], shown["Metric"], strict=True))
    does = "; ".join(f"{heading[switch]}: {deviation}" for switch, (_, _, deviation) in SWITCHES.items())
    caption = (
        f"Where the published code deviates from the paper's definitions, and what that changes here. {does}. "
        "With evaluation.compat = reference in the config the first two become the main values. Bold: a visible "
        "difference."
    )
    return Table(values=table, shown=shown, bold=bold, caption=caption, groups=2)
