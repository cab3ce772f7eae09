"""The published code deviates from the paper's definitions in a few places.

Each row computes a metric both ways on this run's representations and uncertainties.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pipeline_lib.tables.render import Table, number, signed
from pipeline_lib.tables.spec import ViewSpec
from pipeline_lib.tables.summary import EvaluationSet, Summary, row_names

if TYPE_CHECKING:
    import pandas as pd

LABEL, PAPER = "what the reference code's deviations change", ""


class Switch(NamedTuple):
    """A metric as defined and as the reference computes it, its heading, and what the reference does."""

    defined: str
    reference: str
    heading: str
    deviation: str


SWITCHES = {
    "neighbour": Switch(
        "r1",
        "reference_r1",
        "Recall@1",
        "second hit of a top-2 search: of two equal images one finds itself",
    ),
    "auroc": Switch(
        "auroc_correct",
        "reference_auroc_correct",
        "R-AUROC",
        "float32 sigmoid of uncertainties outside [0, 1]",
    ),
    "thresholds": Switch(
        "error_1nn_clean_queries_global",
        "error_1nn_clean_queries",
        "1-NN error, clean queries",
        "the 10 % most uncertain queries of each true class are rejected, instead of all",
    ),
}


class Spec(ViewSpec):
    """What is shown: the first variant on every backbone."""

    downstream: tuple[EvaluationSet, ...]
    backbones: tuple[str, ...]
    variant: str


def build(spec: Spec, metrics: pd.DataFrame, published: pd.DataFrame | None) -> pd.DataFrame:
    """Return one row per switch, backbone and set: the value as defined, as in the reference, and the difference.

    Medians over seeds of the heads of one variant. metrics: rows as `summary.read_metrics` gives them.
    """
    import pandas as pd

    find = Summary(metrics)
    rows = []
    for name, switch in SWITCHES.items():
        method, of = ("representation", "") if name == "neighbour" else ("head", spec.variant)
        for backbone in spec.backbones:
            for pair in spec.downstream:
                ours, theirs = (find(metric, pair, backbone, method, of) for metric in switch[:2])
                rows.append(
                    {
                        "switch": name,
                        "metric": switch.defined,
                        "backbone": backbone,
                        "dataset": pair.dataset,
                        "split": pair.split,
                        "as_defined": ours,
                        "as_in_reference": theirs,
                        "difference": theirs - ours,
                    }
                )
    return pd.DataFrame(rows)


def present(table: pd.DataFrame, spec: Spec) -> Table:
    """Return the result of `build` ready to be written."""
    import pandas as pd

    shown = pd.DataFrame(
        {
            "Metric": table["switch"].map({name: switch.heading for name, switch in SWITCHES.items()}),
            "Backbone": table["backbone"],
            "Dataset": row_names(table),
            "As defined": table["as_defined"].map(number),
            "As in the reference": table["as_in_reference"].map(number),
            "Difference": table["difference"].map(signed),
        }
    )
    does = "; ".join(f"{switch.heading}: {switch.deviation}" for switch in SWITCHES.values())
    caption = (
        f"Where the published code deviates from the paper's definitions, and what that changes here. {does}. "
        "With evaluation.compat = reference in the config the first two become the main values. Bold: a visible "
        "difference."
    )
    bold = pd.DataFrame({"Difference": table["difference"].abs() >= 0.0005})
    return Table(table, shown, bold, caption, groups=2)
