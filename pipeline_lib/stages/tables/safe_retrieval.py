"""The safe-retrieval table: 1-NN error without the most uncertain images, per backbone, variant and dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline_lib.stages.sets import downstream_sets, upstream_set
from pipeline_lib.tables import safe_retrieval
from pipeline_lib.tables.render import Table


def build(spec: Mapping[str, Any], metrics: pd.DataFrame, published: pd.DataFrame | None) -> Table:
    """Return the table, ready to be written. The spec also has `table_share`, the share that is left out."""
    table = safe_retrieval.build(
        metrics, published, upstream_set(spec), downstream_sets(spec), spec["backbones"], spec["variants"]
    )
    return safe_retrieval.present(table, spec["table_share"])
