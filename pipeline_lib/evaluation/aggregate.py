"""`results/metrics.csv`: the metric rows of all evaluations, and means over the downstream sets."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import ArtefactError
from pipeline_lib.evaluation.metric_rows import COLUMNS, read_metric_rows
from pipeline_lib.evaluation.scores import METRICS
from pipeline_lib.evaluation.spec import MEAN_DATASET, MEAN_PREFIX, EvaluationSpec

_KEY = [column for column in COLUMNS if column not in ("value", "n")]
# A mean of interval bounds is no interval, a mean of counts no count.
_NOT_AVERAGED = r"_ci_low$|_ci_high$|^lone_class_images$|^resampled_classes$"


def aggregate(evaluation_dirs: Iterable[Path]) -> pd.DataFrame:
    """Return the metric rows of these evaluation artefacts, sorted.

    Adds `avg_downstream_<metric>` rows (dataset `downstream`): the plain mean over the downstream sets that have the
    metric, NaN where it is NaN on one of them; n is the number of sets.
    Raises `ArtefactError` when two artefacts hold the same row.
    """
    tables = []
    for directory in evaluation_dirs:
        manifest = artefacts.read(directory)
        if METRICS not in manifest.files:
            raise ArtefactError(f"{directory}: is a {manifest.stage} artefact, which has no metrics; list evaluations")
        about = EvaluationSpec.of_manifest(manifest.spec)
        tables.append(read_metric_rows(Path(directory) / METRICS).assign(is_upstream=about.is_upstream))
    rows = pd.concat(tables, ignore_index=True)
    if (is_repeated := rows.duplicated(_KEY)).any():
        first = rows.loc[is_repeated, _KEY].iloc[0]
        name = ", ".join(str(value) for value in first if not pd.isna(value) and value != "")
        raise ArtefactError(f"metrics: two evaluations hold the metric {name}; list each evaluation once")
    rows = pd.concat([rows[COLUMNS], _downstream_means(rows)], ignore_index=True)
    return rows.sort_values(_KEY, kind="stable", na_position="first")


def _downstream_means(rows: pd.DataFrame) -> pd.DataFrame:
    averaged = rows[~rows["is_upstream"].astype(bool) & ~rows["metric"].str.contains(_NOT_AVERAGED)]
    groups = averaged.groupby(["backbone", "method", "variant", "seed", "metric"], dropna=False)["value"]
    # Rounded once, so that the order of the sets does not matter.
    means = groups.agg(value=lambda values: math.fsum(values) / len(values), n="size").reset_index()
    means["metric"] = MEAN_PREFIX + means["metric"]
    return means.assign(dataset=MEAN_DATASET, split="")[COLUMNS]
