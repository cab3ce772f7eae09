"""Joint training without and with stop-gradient (Figure 3 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.core import artefacts
from pipeline_lib.plots import joint_training

FOLDERS = {False: "no_stop_gradient", True: "stop_gradient"}


def draw(spec: Mapping[str, Any], results: Path) -> Figure:
    """Return the figure. spec: `joint` (`backbone` and `seeds`) and `size`."""
    backbone = spec["joint"]["backbone"]
    curves = {}
    for stop_gradient, folder in FOLDERS.items():
        for seed in spec["joint"]["seeds"]:
            directory = results / "joint_training" / backbone / folder / f"seed{seed}"
            manifest = artefacts.read(directory, "joint_training", {"stop_gradient": stop_gradient, "seed": seed})
            curves[stop_gradient, seed] = pd.read_json(directory / "curve.jsonl", lines=True)
    return joint_training.draw(
        curves,
        backbone,
        manifest.spec["dataset"],
        manifest.facts["eval_images"],
        manifest.facts["recipe"]["loss"],
        manifest.facts["recipe"]["loss_weight"],
        spec["size"]["width"],
        spec["size"]["height"],
    )
