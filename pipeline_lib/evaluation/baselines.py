"""Evaluation of a representation and of the uncertainties that need no head.

Three uncertainties u: `class_entropy`, the entropy of the classifier's probabilities, where the backbone has a
classifier; `embedding_norm`, the negative norm of the representation (1 / norm has the same ranks); `knn_distance`, one
minus the cosine similarity to the nearest other image of the same set, so it needs the set and says nothing of a crop
on its own. A backbone that a method of the URL benchmark trained has one more, its `own_uncertainty`. What depends on
no uncertainty is reported as method `representation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pipeline_lib.core.errors import ArtefactError
from pipeline_lib.core.jobs import Job
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.evaluation.alignment import positions, require_same_images
from pipeline_lib.evaluation.measures import (
    Images,
    Uncertainty,
    measure_representation,
    measure_uncertainties,
    resampled_aurocs,
)
from pipeline_lib.evaluation.metric_rows import metric_rows
from pipeline_lib.evaluation.mixed import MixedRows, mix_of
from pipeline_lib.evaluation.scores import Scores, read_scores, write_evaluation
from pipeline_lib.evaluation.spec import BaselinesSpec, EvaluationSpec
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.metrics.reference import neighbour_reference
from pipeline_lib.metrics.retrieval import neighbour_is_correct
from pipeline_lib.retrieval.store import NeighbourTable, read_neighbours

Columns = Scores | Mapping[str, np.ndarray]
_BASELINES = ("class_entropy", "embedding_norm", "knn_distance", "own_uncertainty")
_BLOCK_ROWS = 16_384


def evaluate_baselines(job: Job[BaselinesSpec], eval_cache: FeatureCache, crop_cache: FeatureCache) -> None:
    """Evaluate one split and write its evaluation artefact.

    Without the input `upstream` there is no `auroc_ood`, and no `auroc_correct_mixed`, which also needs a mix in the
    neighbours.

    Parameters
    ----------
    job
        Its inputs: `dataset`, `neighbours`, and `upstream`, the baselines' evaluation of the upstream evaluation split.
    eval_cache, crop_cache
        The views `eval` and `centre_crop` of the split.

    Raises
    ------
    ArtefactError
        Naming the artefact whose images don't match.
    """
    spec = job.spec
    dataset = ImageDataset(job.input("dataset"), spec.split)
    neighbours = read_neighbours(job.input("neighbours"), spec.same_set())
    columns = _columns(spec, dataset, eval_cache, crop_cache, neighbours)
    upstream: dict[str, np.ndarray] = {}
    mix = None
    upstream_dir = job.optional_input("upstream")
    if upstream_dir is not None:
        scores = read_scores(upstream_dir, {"backbone": spec.backbone, "is_upstream": True})
        upstream = baseline_uncertainties(scores)
        mix = mix_of(neighbours, columns["sample_id"], scores)
    image, crop = baseline_uncertainties(columns), baseline_uncertainties(columns, of="crop_")
    in_reference = {"embedding_norm": _inverse(columns["embedding_norm"])}
    uncertainties = {
        method: Uncertainty(u, crop.get(method), upstream.get(method), in_reference.get(method))
        for method, u in image.items()
    }
    images = replace(
        images_of(spec, columns, mix),
        label_rank=eval_cache.read_all("label_rank") if "classifier_correct" in columns else None,
        lone_class_images=neighbours.manifest.facts["lone_class_images"],
    )
    rows = metric_rows(spec, "representation", None, measure_representation(images, spec))
    resampled = resampled_aurocs(images, list(image.values()), spec)
    for method, metrics in measure_uncertainties(images, uncertainties, resampled, {}, spec).items():
        rows += metric_rows(spec, method, None, metrics)
    write_evaluation(job, columns, rows, dict(zip(image, resampled, strict=True)))


def baseline_uncertainties(columns: Columns, of: str = "") -> dict[str, np.ndarray]:
    """Return u by baseline, float [n] each, from the columns of the baselines' scores; of: "crop_" for the crops'."""
    found = {name: columns.get(f"{of}{name}") for name in _BASELINES}
    return {name: -u if name == "embedding_norm" else u for name, u in found.items() if u is not None}


def images_of(spec: EvaluationSpec, columns: Columns, mix: MixedRows | None) -> Images:
    """Return what the columns of the baselines' scores say about the images; mix: of them with upstream images."""
    return Images(
        dataset=f"{spec.dataset}/{spec.split}",
        correct=columns["correct"],
        reference_correct=columns["reference_correct"],
        label=columns["label"],
        crop_fraction=columns["crop_fraction"],
        classifier_correct=columns.get("classifier_correct"),
        vote_entropy=columns.get("vote_entropy"),
        mix=mix,
    )


def _columns(
    spec: EvaluationSpec,
    dataset: ImageDataset,
    eval_cache: FeatureCache,
    crop_cache: FeatureCache,
    neighbours: NeighbourTable,
) -> dict[str, np.ndarray]:
    """Return the per-image columns, in the order of the eval cache; images that were skipped there have no row."""
    sample_id, label = eval_cache.read_all("sample_id"), eval_cache.read_all("label")
    in_dataset = positions(sample_id, dataset.sample_id, dataset.manifest.directory)
    if not np.array_equal(dataset.label[in_dataset], label):
        raise ArtefactError(
            f"{eval_cache.view_dir}: has other labels than {dataset.manifest.directory}; "
            "delete it and run snakemake again"
        )
    require_same_images(sample_id, crop_cache.read_all("sample_id"), crop_cache.view_dir)
    require_same_images(sample_id, neighbours.sample_id, neighbours.manifest.directory)
    neighbour = positions(neighbours.neighbour_sample_id, sample_id, eval_cache.view_dir)
    columns = {
        "sample_id": sample_id,
        "label": label,
        "neighbour_sample_id": neighbours.neighbour_sample_id,
        "correct": neighbour_is_correct(label, neighbour),
        "reference_correct": neighbour_is_correct(label, neighbour_reference(neighbour, neighbours.similarity)),
        "embedding_norm": _embedding_norm(eval_cache),
        # Between equal vectors rounding can put the similarity above one.
        "knn_distance": np.maximum(1 - neighbours.similarity, 0),
    }
    has_classifier, has_own = (name in eval_cache.arrays for name in ("class_entropy", "uncertainty"))
    if has_classifier:
        columns["class_entropy"] = eval_cache.read_all("class_entropy")
    if has_own:
        columns["own_uncertainty"] = eval_cache.read_all("uncertainty")
    if spec.is_upstream and "task_loss" in eval_cache.arrays:
        columns["classifier_correct"] = eval_cache.read_all("label_rank") == 0
        columns["task_loss"] = eval_cache.read_all("task_loss")
    vote_entropy = dataset.vote_entropy()
    if vote_entropy is not None:
        columns["vote_entropy"] = vote_entropy[in_dataset]
    columns["crop_fraction"] = crop_cache.read_all("crop_fraction")
    if has_classifier:
        columns["crop_class_entropy"] = crop_cache.read_all("class_entropy")
    columns["crop_embedding_norm"] = _embedding_norm(crop_cache)
    if has_own:
        columns["crop_own_uncertainty"] = crop_cache.read_all("uncertainty")
    return columns


def _embedding_norm(cache: FeatureCache) -> np.ndarray:
    """Return the Euclidean norm of each representation, float64 [n], read in blocks."""
    norm = np.empty(cache.rows)
    for start in range(0, cache.rows, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, cache.rows)
        norm[start:stop] = np.linalg.norm(cache.read("embedding", 0, start, stop).astype(np.float64), axis=1)
    return norm


def _inverse(norm: np.ndarray) -> np.ndarray:
    return np.divide(1, norm, out=np.full(len(norm), np.inf), where=norm > 0)
