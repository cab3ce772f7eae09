"""The zero-shot table: R-AUROC per backbone, variant and dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline_lib.stages.sets import downstream_sets, upstream_set
from pipeline_lib.tables import zero_shot
from pipeline_lib.tables.render import Table


def build(spec: Mapping[str, Any], metrics: pd.DataFrame, published: pd.DataFrame | None) -> Table:
    """Return the table, ready to be written."""
    table = zero_shot.build(
        metrics, published, upstream_set(spec), downstream_sets(spec), spec["backbones"], spec["variants"]
    )
    return zero_shot.present(table)
