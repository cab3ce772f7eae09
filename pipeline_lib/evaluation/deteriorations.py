"""How uncertainties change when images are deteriorated step by step (Figure 6 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.evaluation.alignment import require_same_images
from pipeline_lib.evaluation.metric_rows import Value, metric_rows, write_metric_rows
from pipeline_lib.evaluation.scores import METRICS, SCORES, read_scores
from pipeline_lib.evaluation.scoring import score_cache
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.heads.checkpoint import TrainedHead, read_head

STAGE = "deteriorations"


def evaluate_deteriorations(
    spec: Mapping[str, Any], cache: FeatureCache, scores_dir: Path, head_dirs: Mapping[int, Path], out: Path
) -> None:
    """Score the deteriorated images of one split with all heads of a variant and write the artefact.

    `scores.parquet` has `sample_id` and, per draw and seed, `<kind>_<severity>_seed<k>` (float32 [n]); `metrics.csv`
    has per seed the metrics of `deterioration_metrics`.

    spec: `backbone`, `variant`, `seeds`, `dataset`, `split`, `is_upstream`, and `draws`, a list of dicts with `kind`
    and `severity` (1, 2, ...; further keys are the transform's).
    cache: the view `deteriorations` of the split, in which epoch e is draw e.
    scores_dir: the heads' evaluation of the clean images.
    head_dirs: a head's folder per seed.
    Raises `PipelineError` for draws that lack a severity, `ArtefactError` naming the artefact that doesn't fit.
    """
    draws = _draws(spec["draws"])
    _require_these_draws(cache, spec)
    clean = read_scores(scores_dir, {key: spec[key] for key in ("backbone", "variant", "dataset", "split")})
    sample_id = cache.read_all("sample_id")
    require_same_images(sample_id, clean["sample_id"], scores_dir)
    inputs: dict[str, Manifest] = {"features": cache.manifest, "scores": clean.manifest}
    heads: dict[int, TrainedHead] = {}
    for seed in spec["seeds"]:
        expected = {"backbone": spec["backbone"], "variant": spec["variant"], "seed": seed}
        heads[seed], inputs[f"head_seed{seed}"] = read_head(head_dirs[seed], expected)
    columns = {"sample_id": sample_id}
    deteriorated: dict[int, dict[tuple[str, int], np.ndarray]] = {seed: {} for seed in heads}
    for epoch, (kind, severity) in enumerate(draws):
        for seed, uncertainty in score_cache(heads, cache, epoch).items():
            deteriorated[seed][kind, severity] = columns[f"{kind}_{severity}_seed{seed}"] = uncertainty
    rows: list[dict[str, Any]] = []
    for seed, uncertainties in deteriorated.items():
        metrics = deterioration_metrics(clean[f"uncertainty_seed{seed}"], uncertainties)
        rows += metric_rows(spec, "head", seed, metrics)
    with artefacts.writing(out, STAGE, spec) as draft:
        pq.write_table(pa.table(columns), draft.path / SCORES)
        write_metric_rows(pd.DataFrame(rows), draft.path / METRICS)
        for name, manifest in inputs.items():
            draft.add_input(name, manifest)
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


def _draws(draws: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Return kind and severity of each draw; every kind must have the severities 1, 2, ... once each."""
    pairs = [(draw["kind"], draw["severity"]) for draw in draws]
    for kind in dict.fromkeys(kind for kind, _ in pairs):
        severities = sorted(severity for other, severity in pairs if other == kind)
        if severities != list(range(1, len(severities) + 1)):
            raise PipelineError(
                f"deterioration '{kind}' has the severities {severities}; list 1 to its last one once each, since "
                "every step is compared with the one before"
            )
    return pairs


def _require_these_draws(cache: FeatureCache, spec: Mapping[str, Any]) -> None:
    """Raise `ArtefactError` unless the cache holds these draws of this set: a swapped epoch looks like any other."""
    block = cache.manifest.spec["block"]
    found = {**{key: block[key] for key in ("backbone", "dataset", "split")}, "draws": block["view"].get("draws")}
    for key, value in found.items():
        if value != spec[key]:
            raise ArtefactError(
                f"{cache.view_dir}: has {key} {value}, but {spec[key]} was asked for; delete it and run snakemake again"
            )
