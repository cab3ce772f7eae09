"""1-NN error over the share that is left out, for the first backbone and variant of the config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.plots import safe_retrieval_curves
from pipeline_lib.stages.sets import downstream_sets, upstream_set


def draw(spec: Mapping[str, Any], results: Path) -> Figure:
    """Return the figure."""
    backbone, variant, upstream = spec["backbones"][0], spec["variants"][0], upstream_set(spec)
    folder = results / "safe_retrieval" / backbone / variant
    curves = {
        each: pd.read_csv(folder / each.dataset / each.split / "curves.csv")
        for each in [upstream, *downstream_sets(spec)]
    }
    return safe_retrieval_curves.draw(
        curves, upstream, backbone, variant, spec["size"]["width"], spec["size"]["height"]
    )
