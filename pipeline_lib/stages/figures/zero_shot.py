"""R-AUROC per dataset (Figure 1 of the paper), for the first variant of the config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pipeline_lib.plots import zero_shot
from pipeline_lib.stages.sets import downstream_sets, upstream_set
from pipeline_lib.tables.summary import read_metrics


def draw(spec: Mapping[str, Any], results: Path) -> Figure:
    """Return the figure."""
    return zero_shot.draw(
        read_metrics(results / "metrics.csv"),
        upstream_set(spec),
        downstream_sets(spec),
        spec["backbones"],
        spec["variants"][0],
        spec["size"]["width"],
        spec["size"]["height"],
    )
