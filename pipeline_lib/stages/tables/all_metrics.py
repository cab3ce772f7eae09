"""The table of all metrics per dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline_lib.stages.sets import downstream_sets, upstream_set
from pipeline_lib.tables import all_metrics
from pipeline_lib.tables.render import Table


def build(spec: Mapping[str, Any], metrics: pd.DataFrame, published: pd.DataFrame | None) -> Table:
    """Return the table, ready to be written."""
    table = all_metrics.build(metrics, upstream_set(spec), downstream_sets(spec), spec["backbones"], spec["variants"])
    return all_metrics.present(table)
