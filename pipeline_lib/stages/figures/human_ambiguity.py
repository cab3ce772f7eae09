"""Uncertainty against human disagreement (Figure 7 of the paper), for the first backbone and variant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from pipeline_lib.plots import human_ambiguity
from pipeline_lib.plots.densities import typical_seed
from pipeline_lib.stages.sets import downstream_sets, upstream_set
from pipeline_lib.tables.summary import read_metrics


def draw(spec: Mapping[str, Any], results: Path) -> Figure:
    """Return the figure."""
    backbone, variant = spec["backbones"][0], spec["variants"][0]
    metrics = read_metrics(results / "metrics.csv")
    downstream = downstream_sets(spec)
    column = f"uncertainty_seed{typical_seed(metrics, downstream, backbone, variant)}"
    folder = results / "evaluation" / backbone
    scores = {}
    for each in [upstream_set(spec), *downstream]:
        place = Path(each.dataset) / each.split / "scores.parquet"
        if "vote_entropy" not in pq.read_schema(folder / "baselines" / place).names:
            continue
        votes = pd.read_parquet(folder / "baselines" / place, columns=["sample_id", "vote_entropy"])
        heads = pd.read_parquet(folder / "heads" / variant / place, columns=["sample_id", column])
        both = votes.merge(heads, on="sample_id", validate="one_to_one")
        if both["vote_entropy"].notna().any():
            scores[each] = (both[column].to_numpy(), both["vote_entropy"].to_numpy())
    return human_ambiguity.draw(
        metrics, scores, backbone, variant, len(spec["seeds"]), spec["size"]["width"], spec["size"]["height"]
    )
