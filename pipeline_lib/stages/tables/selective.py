"""The table of risk and coverage per method, for the first variant of the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline_lib.stages.sets import downstream_sets
from pipeline_lib.tables import selective
from pipeline_lib.tables.render import Table


def build(spec: Mapping[str, Any], metrics: pd.DataFrame, published: pd.DataFrame | None) -> Table:
    """Return the table, ready to be written."""
    table = selective.build(metrics, downstream_sets(spec), spec["backbones"], spec["variants"][0])
    return selective.present(table)
