"""The table of ablations (Table 3 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline_lib.tables import ablations
from pipeline_lib.tables.render import Table
from pipeline_lib.tables.summary import EvaluationSet


def build(spec: Mapping[str, Any], metrics: pd.DataFrame, published: pd.DataFrame | None) -> Table:
    """Return the table, ready to be written. spec: `ablations` with averaged, backbones, baseline, variants."""
    options = spec["ablations"]
    averaged = [EvaluationSet(entry["dataset"], entry["split"]) for entry in options["averaged"]]
    table = ablations.build(
        metrics, published, averaged, options["backbones"], options["baseline"], options["variants"]
    )
    return ablations.present(table)
