"""Evaluation of trained heads: all seeds of a variant on one split. A head is a few matrix products; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.evaluation.alignment import require_same_images
from pipeline_lib.evaluation.baselines import baseline_uncertainties, images_of
from pipeline_lib.evaluation.metric_rows import metric_rows
from pipeline_lib.evaluation.mixed import mix_of
from pipeline_lib.evaluation.scores import read_resampled, read_scores, write_evaluation
from pipeline_lib.evaluation.scoring import score_cache
from pipeline_lib.evaluation.uncertainty import Rival, Uncertainty, resampled_aurocs, uncertainty_metrics
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.heads.checkpoint import TrainedHead, read_head
from pipeline_lib.retrieval.store import read_neighbours


def evaluate_heads(
    spec: Mapping[str, Any],
    eval_cache: FeatureCache,
    crop_cache: FeatureCache,
    baselines_dir: Path,
    head_dirs: Mapping[int, Path],
    upstream_dir: Path | None,
    neighbours_dir: Path | None,
    out: Path,
) -> None:
    """Evaluate the heads of a variant on one split and write their evaluation artefact.

    spec: `backbone`, `variant`, `seeds`, `dataset`, `split`, `is_upstream`, and what `uncertainty_metrics` needs:
    `bootstrap`, `target_accuracies`, `compat`.
    eval_cache, crop_cache: the views `eval` and `centre_crop` of the split.
    baselines_dir: the baselines' evaluation of the split, which says which images are retrieved correctly, and whose
    uncertainties the heads are compared with.
    head_dirs: a head's folder per seed.
    upstream_dir: this variant's evaluation of the upstream evaluation split, for `auroc_ood`; None leaves that out.
    neighbours_dir: the neighbours artefact of the split, for `auroc_correct_mixed` where it has a mix with upstream
    images and `upstream_dir` is there; None leaves that out.
    Raises `ArtefactError` naming the artefact whose images don't match.
    """
    same_set = {key: spec[key] for key in ("backbone", "dataset", "split")}
    baselines = read_scores(baselines_dir, {**same_set, "bootstrap": spec["bootstrap"]})
    sample_id = eval_cache.read_all("sample_id")
    require_same_images(sample_id, baselines["sample_id"], baselines_dir)
    require_same_images(sample_id, crop_cache.read_all("sample_id"), crop_cache.view_dir)
    inputs: dict[str, Manifest] = {
        "features": eval_cache.manifest,
        "centre_crop": crop_cache.manifest,
        "baselines": baselines.manifest,
    }
    heads: dict[int, TrainedHead] = {}
    for seed in spec["seeds"]:
        expected = {"backbone": spec["backbone"], "variant": spec["variant"], "seed": seed}
        heads[seed], inputs[f"head_seed{seed}"] = read_head(head_dirs[seed], expected)
    image = score_cache(heads, eval_cache)
    upstream: dict[int, np.ndarray] = {}
    mix = None
    if upstream_dir is not None:
        scores = read_scores(
            upstream_dir, {"backbone": spec["backbone"], "variant": spec["variant"], "is_upstream": True}
        )
        upstream = {seed: scores[f"uncertainty_seed{seed}"] for seed in heads}
        inputs["upstream"] = scores.manifest
        if neighbours_dir is not None:
            neighbours = read_neighbours(neighbours_dir, same_set)
            mix = mix_of(neighbours, sample_id, scores)
            inputs["neighbours"] = neighbours.manifest
    images, rows, rivals_resampled = images_of(spec, baselines, mix), [], read_resampled(baselines)
    rivals = {name: Rival(u, rivals_resampled[name]) for name, u in baseline_uncertainties(baselines).items()}
    # Side by side: the bootstrap keeps one core busy, and scoring leaves it half of the machine.
    with ThreadPoolExecutor(1) as background:
        scoring = background.submit(score_cache, heads, crop_cache)
        resampled = resampled_aurocs(images, list(image.values()), spec)
        crop = scoring.result()
    uncertainties = {seed: Uncertainty(image[seed], crop[seed], upstream.get(seed)) for seed in heads}
    for seed, metrics in uncertainty_metrics(images, uncertainties, rivals, resampled, spec).items():
        rows += metric_rows(spec, "head", seed, metrics)
    columns = {
        "sample_id": sample_id,
        **{f"uncertainty_seed{seed}": values for seed, values in image.items()},
        **{f"crop_uncertainty_seed{seed}": values for seed, values in crop.items()},
    }
    write_evaluation(out, spec, columns, rows, inputs)
