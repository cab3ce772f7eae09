"""Risk over coverage on the downstream sets, for the first backbone and variant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.plots import risk_coverage
from pipeline_lib.stages.sets import downstream_sets


def draw(spec: Mapping[str, Any], results: Path) -> Figure:
    """Return the figure."""
    backbone, variant = spec["backbones"][0], spec["variants"][0]
    folder = results / "evaluation" / backbone
    selections = {}
    for each in downstream_sets(spec):
        place = Path(each.dataset) / each.split / "scores.parquet"
        baselines = pd.read_parquet(folder / "baselines" / place)
        heads = pd.read_parquet(folder / "heads" / variant / place)
        uncertainties = {"embedding_norm": -baselines["embedding_norm"], "knn_distance": baselines["knn_distance"]}
        if "class_entropy" in baselines:  # a backbone without a classifier has none
            uncertainties = {"class_entropy": baselines["class_entropy"], **uncertainties}
        selections[each] = risk_coverage.Selection(
            ~baselines["correct"].to_numpy(),
            {seed: heads[f"uncertainty_seed{seed}"].to_numpy() for seed in spec["seeds"]},
            {name: each.to_numpy() for name, each in uncertainties.items()},
        )
    return risk_coverage.draw(selections, backbone, variant, spec["size"]["width"], spec["size"]["height"])
