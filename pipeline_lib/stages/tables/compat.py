"""The table of what the reference code's deviations change, for the first variant of the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline_lib.stages.sets import downstream_sets
from pipeline_lib.tables import compat
from pipeline_lib.tables.render import Table


def build(spec: Mapping[str, Any], metrics: pd.DataFrame, published: pd.DataFrame | None) -> Table:
    """Return the table, ready to be written."""
    table = compat.build(metrics, downstream_sets(spec), spec["backbones"], spec["variants"][0])
    return compat.present(table)
