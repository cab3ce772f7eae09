"""Evaluation of trained heads: all seeds of a variant on one split. A head is a few matrix products; no torch.

Beside each head (method `head`) stands its combination with the 1-NN distance (`combination`, see `retrieval.signals`).
Like the distance, it needs the set, so it says nothing of crops or of other sets.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipeline_lib.core.jobs import Job
from pipeline_lib.evaluation.alignment import require_same_images
from pipeline_lib.evaluation.baselines import baseline_uncertainties, images_of
from pipeline_lib.evaluation.measures import Uncertainty, measure_uncertainties, resampled_aurocs
from pipeline_lib.evaluation.metric_rows import metric_rows
from pipeline_lib.evaluation.mixed import mix_of
from pipeline_lib.evaluation.scores import read_resampled, read_scores, write_evaluation
from pipeline_lib.evaluation.scoring import read_heads, score_cache
from pipeline_lib.evaluation.spec import HeadsSpec
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.metrics.auroc import auroc
from pipeline_lib.metrics.r_auroc import Rival
from pipeline_lib.retrieval.signals import combine
from pipeline_lib.retrieval.store import read_neighbours


def evaluate_heads(job: Job[HeadsSpec], eval_cache: FeatureCache, crop_cache: FeatureCache) -> None:
    """Evaluate the heads of a variant on one split and write their evaluation artefact.

    Parameters
    ----------
    job
        Its inputs: `baselines`, the baselines' evaluation of the split, which says which images are retrieved
        correctly, and whose uncertainties the heads are compared with; `heads`, in the order of the seeds;
        `upstream`, this variant's evaluation of the upstream evaluation split, without which there is no `auroc_ood`;
        `neighbours` of the split, without which, or without a mix or `upstream`, there is no `auroc_correct_mixed`.
    eval_cache, crop_cache
        The views `eval` and `centre_crop` of the split.

    Raises
    ------
    ArtefactError
        Naming the artefact whose images don't match.
    """
    spec, baselines_dir = job.spec, job.input("baselines")
    baselines = read_scores(baselines_dir, spec.same_set("bootstrap"))
    sample_id = eval_cache.read_all("sample_id")
    require_same_images(sample_id, baselines["sample_id"], baselines_dir)
    require_same_images(sample_id, crop_cache.read_all("sample_id"), crop_cache.view_dir)
    heads = read_heads(job)
    image = score_cache(heads, eval_cache)
    upstream: dict[int, np.ndarray] = {}
    mix = None
    upstream_dir, neighbours_dir = job.optional_input("upstream"), job.optional_input("neighbours")
    if upstream_dir is not None:
        scores = read_scores(upstream_dir, {"backbone": spec.backbone, "variant": spec.variant, "is_upstream": True})
        upstream = scores.of_seeds(heads)
        if neighbours_dir is not None:
            mix = mix_of(read_neighbours(neighbours_dir, spec.same_set()), sample_id, scores)
    images, of_baselines = images_of(spec, baselines, mix), read_resampled(baselines)
    wrong = ~baselines["correct"]
    rivals = {
        name: Rival(auroc(u, wrong, images.dataset), of_baselines[name])
        for name, u in baseline_uncertainties(baselines).items()
    }
    # Side by side: the bootstrap keeps one core busy, and scoring leaves it half of the machine.
    with ThreadPoolExecutor(1) as background:
        scoring = background.submit(score_cache, heads, crop_cache)
        together = [combine(baselines["knn_distance"], u) for u in image.values()]
        resampled, of_combinations = np.split(resampled_aurocs(images, [*image.values(), *together], spec), 2)
        crop = scoring.result()
    uncertainties = {seed: Uncertainty(image[seed], crop[seed], upstream.get(seed)) for seed in heads}
    measured = measure_uncertainties(images, uncertainties, resampled, rivals, spec)
    rows = [row for seed, metrics in measured.items() for row in metric_rows(spec, "head", seed, metrics)]
    for seed, u, of_head, on_resamples in zip(heads, together, resampled, of_combinations, strict=True):
        others = rivals | {"head": Rival(auroc(image[seed], wrong, images.dataset), of_head)}
        found = measure_uncertainties(images, {seed: Uncertainty(u)}, on_resamples[None], others, spec)
        rows += metric_rows(spec, "combination", seed, found[seed])
    columns = {
        "sample_id": sample_id,
        **{f"uncertainty_seed{seed}": values for seed, values in image.items()},
        **{f"crop_uncertainty_seed{seed}": values for seed, values in crop.items()},
    }
    write_evaluation(job, columns, rows)
