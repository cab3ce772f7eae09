"""The table of every published number that this run reproduces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.tables import published as beside_published
from pipeline_lib.tables.render import Table


def build(spec: Mapping[str, Any], metrics: pd.DataFrame, published: pd.DataFrame | None) -> Table:
    """Return the table, ready to be written."""
    if published is None:
        raise PipelineError("table published: needs --published, a CSV of published numbers")
    return beside_published.present(beside_published.build(metrics, published))
