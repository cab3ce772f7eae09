"""Images with the lowest and highest uncertainty (Figure 5 of the paper), for the first backbone and variant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.plots import examples
from pipeline_lib.stages.sets import downstream_sets, upstream_set
from pipeline_lib.tables.summary import names

_IMAGES_A_SIDE = 6


def draw(spec: Mapping[str, Any], results: Path) -> Figure:
    """Return the figure."""
    backbone, variant = spec["backbones"][0], spec["variants"][0]
    chosen = []
    for each, name in names([upstream_set(spec), *downstream_sets(spec)]).items():
        folder = results / "evaluation" / backbone / "heads" / variant / each.dataset / each.split
        images = ImageDataset(results / "datasets" / each.dataset, each.split)
        chosen.append(examples.extremes(pd.read_parquet(folder / "scores.parquet"), images, name, _IMAGES_A_SIDE))
    return examples.draw(chosen, backbone, variant, len(spec["seeds"]), spec["size"]["width"], spec["size"]["height"])
