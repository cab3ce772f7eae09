"""t-SNE and UMAP maps of one set with its uncertainties (Figure 9 of the paper), for the first backbone and variant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.plots import projection
from pipeline_lib.plots.densities import typical_seed
from pipeline_lib.stages.sets import downstream_sets
from pipeline_lib.tables.summary import read_metrics


def draw(spec: Mapping[str, Any], results: Path) -> Figure:
    """Return the figure."""
    backbone, variant = spec["backbones"][0], spec["variants"][0]
    place = Path(spec["projection"]["dataset"]) / spec["projection"]["split"]
    seed = typical_seed(read_metrics(results / "metrics.csv"), downstream_sets(spec), backbone, variant)
    column = f"uncertainty_seed{seed}"
    coordinates = pd.read_parquet(results / "projection" / backbone / place / "coordinates.parquet")
    folder = results / "evaluation" / backbone / "heads" / variant / place
    scores = pd.read_parquet(folder / "scores.parquet", columns=["sample_id", column])
    both = coordinates.merge(scores, on="sample_id", validate="one_to_one")
    return projection.draw(
        both,
        both[column].to_numpy(),
        spec["projection"]["dataset"],
        backbone,
        variant,
        len(spec["seeds"]),
        spec["size"]["width"],
        spec["size"]["height"],
    )
