"""R@1 against R-AUROC per backbone, variant and seed (Figure 4 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pipeline_lib.plots import recall_vs_auroc
from pipeline_lib.tables.summary import EvaluationSet, read_metrics


def draw(spec: Mapping[str, Any], results: Path) -> Figure:
    """Return the figure."""
    return recall_vs_auroc.draw(
        read_metrics(results / "metrics.csv"),
        read_metrics(spec["published"]) if spec["published"] else None,
        [EvaluationSet(entry["dataset"], entry["split"]) for entry in spec["averaged"]],
        spec["backbones"],
        spec["variants"],
        spec["size"]["width"],
        spec["size"]["height"],
    )
