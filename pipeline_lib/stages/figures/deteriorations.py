"""Uncertainty of deteriorated images (Figure 6 of the paper), for the first backbone and variant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.plots import deteriorations
from pipeline_lib.plots.densities import typical_seed
from pipeline_lib.stages.sets import downstream_sets
from pipeline_lib.tables.summary import EvaluationSet, read_metrics


def draw(spec: Mapping[str, Any], results: Path) -> Figure:
    """Return the figure."""
    backbone, variant = spec["backbones"][0], spec["variants"][0]
    sets = [EvaluationSet(entry["dataset"], entry["split"]) for entry in spec["deterioration_sets"]]
    seed = typical_seed(read_metrics(results / "metrics.csv"), downstream_sets(spec), backbone, variant)
    columns = {deteriorations.CLEAN: f"uncertainty_seed{seed}"}
    for step in spec["draws"]:
        columns[step["kind"], step["severity"]] = f"{step['kind']}_{step['severity']}_seed{seed}"
    scores, metrics = [], []
    for each in sets:
        place = Path(variant) / each.dataset / each.split
        clean = pd.read_parquet(results / "evaluation" / backbone / "heads" / place / "scores.parquet")
        folder = results / "deteriorations" / backbone / place
        scores.append(clean.merge(pd.read_parquet(folder / "scores.parquet"), on="sample_id", validate="one_to_one"))
        metrics.append(read_metrics(folder / "metrics.csv"))
    pooled = {key: np.concatenate([table[column] for table in scores]) for key, column in columns.items()}
    return deteriorations.draw(
        pooled,
        deteriorations.shares_rising(pd.concat(metrics)),
        sets,
        backbone,
        variant,
        len(spec["seeds"]),
        spec["size"]["width"],
        spec["size"]["height"],
    )
