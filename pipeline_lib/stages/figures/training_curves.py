"""Loss and order accuracy of every head while it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.plots import training_curves


def draw(spec: Mapping[str, Any], results: Path) -> Figure:
    """Return the figure."""
    curves = {
        (backbone, variant, seed): pd.read_json(
            results / "heads" / backbone / variant / f"seed{seed}" / "curve.jsonl", lines=True
        )
        for backbone in spec["backbones"]
        for variant in spec["variants"]
        for seed in spec["seeds"]
    }
    return training_curves.draw(
        curves,
        spec["upstream"],
        spec["backbones"],
        spec["variants"],
        spec["size"]["width"],
        spec["size"]["height"],
    )
