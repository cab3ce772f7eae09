"""The metrics that there are: every module of this folder, and of those below it, that lists `METRICS`.

One more is one more file. Those of this folder are of an uncertainty, those of `representation` of a representation,
whatever the uncertainty.
"""

from __future__ import annotations

import functools
from typing import Literal, get_args

from pipeline_lib.config import kinds
from pipeline_lib.metrics.metric import Metric

Family = Literal["metrics", "metrics.representation"]
# The order of their rows; modules that are not named follow by name.
_FIRST = ("reference", "selective", "classification", "votes", "crops", "ood", "distribution", "r_auroc")


@functools.cache
def found_metrics(family: Family) -> tuple[Metric, ...]:
    """Return the metrics of a folder, in the order of their rows."""
    names = sorted(kinds.kinds(family), key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    return tuple(metric for name in names for metric in kinds.load(family, name).METRICS)


def headed(name: str) -> tuple[Metric, str] | None:
    """Return the metric of a row of metrics.csv, and how it is headed; None for a row of no such metric."""
    for family in get_args(Family):
        for metric in found_metrics(family):
            if (heading := metric.label_of(name)) is not None:
                return metric, heading
    return None


def label(name: str) -> str:
    """Return how a metric is headed: by its own name where it is none of these."""
    found = headed(name)
    return name if found is None else found[1]


def components(*families: Family) -> list[str]:
    """Return the components of these folders, or of all."""
    return [f"{family}.{name}" for family in families or get_args(Family) for name in kinds.kinds(family)]
