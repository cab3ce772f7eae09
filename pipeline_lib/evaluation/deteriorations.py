"""How uncertainties change when images are deteriorated step by step (Figure 6 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.config.deteriorations import Draw
from pipeline_lib.config.views import DrawnDeteriorations
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.core.jobs import Job
from pipeline_lib.evaluation.alignment import require_same_images
from pipeline_lib.evaluation.metric_rows import metric_rows, write_metric_rows
from pipeline_lib.evaluation.scores import METRICS, SCORES, read_scores
from pipeline_lib.evaluation.scoring import read_heads, score_cache
from pipeline_lib.evaluation.spec import DeteriorationsSpec
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.metrics.metric import Value


def evaluate_deteriorations(job: Job[DeteriorationsSpec], cache: FeatureCache) -> None:
    """Score the deteriorated images of one split with all heads of a variant and write the artefact.

    `scores.parquet` has `sample_id` and, per draw and seed, `<kind>_<severity>_seed<k>` (float32 [n]); `metrics.csv`
    has per seed the metrics of `deterioration_metrics`.

    Parameters
    ----------
    job
        Its inputs: `scores`, the heads' evaluation of the clean images, and `heads`, in the order of the seeds.
    cache
        The view `deteriorations` of the split, in which epoch e is draw e.

    Raises
    ------
    PipelineError
        For draws that lack a severity.
    ArtefactError
        Naming the artefact that doesn't fit.
    """
    spec, scores_dir = job.spec, job.input("scores")
    _require_all_severities(spec.draws)
    _require_these_draws(cache, spec)
    clean = read_scores(scores_dir, spec.same_set("variant"))
    sample_id = cache.read_all("sample_id")
    require_same_images(sample_id, clean["sample_id"], scores_dir)
    heads = read_heads(job)
    columns = {"sample_id": sample_id}
    deteriorated: dict[int, dict[tuple[str, int], np.ndarray]] = {seed: {} for seed in heads}
    for epoch, draw in enumerate(spec.draws):
        for seed, uncertainty in score_cache(heads, cache, epoch).items():
            deteriorated[seed][draw.kind, draw.severity] = uncertainty
            columns[f"{draw.kind}_{draw.severity}_seed{seed}"] = uncertainty
    rows: list[dict[str, Any]] = []
    for seed, uncertainties in deteriorated.items():
        metrics = deterioration_metrics(clean[f"uncertainty_seed{seed}"], uncertainties)
        rows += metric_rows(spec, "head", seed, metrics)
    with job.writing() as draft:
        pq.write_table(pa.table(columns), draft.path / SCORES)
        write_metric_rows(pd.DataFrame(rows), draft.path / METRICS)
        draft.facts.update(rows=len(sample_id), columns=list(columns))


def deterioration_metrics(clean: np.ndarray, deteriorated: Mapping[tuple[str, int], np.ndarray]) -> dict[str, Value]:
    """Return the metrics of one head, by metric key.

    `rises_<kind>_<severity>` is the share of images whose u is strictly larger than at the severity before, where
    severity 0 is the clean image; `median_unc_<kind>_<severity>` and `median_unc_clean` are medians of u.

    clean: u of the clean images, float [n]. deteriorated: u per kind and severity, float [n], in the same order.
    """
    n = len(clean)
    metrics = {"median_unc_clean": Value(float(np.median(clean)), n)}
    for (kind, severity), uncertainty in deteriorated.items():
        before = clean if severity == 1 else deteriorated[kind, severity - 1]
        metrics[f"rises_{kind}_{severity}"] = Value(float(np.mean(uncertainty > before)), n)
        metrics[f"median_unc_{kind}_{severity}"] = Value(float(np.median(uncertainty)), n)
    return metrics


def _require_all_severities(draws: Sequence[Draw]) -> None:
    """Raise `PipelineError` unless every kind has the severities 1, 2, ... once each."""
    for kind in dict.fromkeys(draw.kind for draw in draws):
        severities = sorted(draw.severity for draw in draws if draw.kind == kind)
        if severities != list(range(1, len(severities) + 1)):
            raise PipelineError(
                f"deterioration '{kind}' has the severities {severities}; list 1 to its last one once each, since "
                "every step is compared with the one before"
            )


def _require_these_draws(cache: FeatureCache, spec: DeteriorationsSpec) -> None:
    """Raise `ArtefactError` unless the cache holds these draws of this set: a swapped epoch looks like any other."""
    view = cache.spec.view
    for field, value, wanted in (
        ("backbone", cache.spec.backbone, spec.backbone),
        ("dataset", cache.spec.dataset, spec.dataset),
        ("split", cache.spec.split, spec.split),
        ("draws", view.draws if isinstance(view, DrawnDeteriorations) else (), spec.draws),
    ):
        if value != wanted:
            raise ArtefactError(
                f"{cache.view_dir}: has {field} {value}, but {wanted} was asked for; delete it and run snakemake again"
            )
