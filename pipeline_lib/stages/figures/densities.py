"""Densities of u upstream and downstream (Figure 8 of the paper), for the first variant of the config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.plots import densities
from pipeline_lib.stages.sets import downstream_sets, upstream_set
from pipeline_lib.tables.summary import read_metrics


def draw(spec: Mapping[str, Any], results: Path) -> Figure:
    """Return the figure."""
    metrics = read_metrics(results / "metrics.csv")
    upstream, downstream, variant = upstream_set(spec), downstream_sets(spec), spec["variants"][0]
    scores = {}
    for backbone in spec["backbones"]:
        column = f"uncertainty_seed{densities.typical_seed(metrics, downstream, backbone, variant)}"
        for each in [upstream, *downstream]:
            folder = results / "evaluation" / backbone / "heads" / variant / each.dataset / each.split
            scores[backbone, each] = pd.read_parquet(folder / "scores.parquet", columns=[column])[column].to_numpy()
    return densities.draw(
        metrics,
        scores,
        upstream,
        downstream,
        spec["backbones"],
        variant,
        spec["size"]["width"],
        spec["size"]["height"],
    )
