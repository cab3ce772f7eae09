"""Maps of representations on two dimensions, by t-SNE and UMAP (Figure 9 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.core.errors import PipelineError, did_you_mean
from pipeline_lib.core.jobs import Job
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.evaluation.spec import ProjectionSpec
from pipeline_lib.features.cache import FeatureCache

COORDINATES = "coordinates.parquet"
_COMPONENTS = 50
_FEWEST_IMAGES = 5


def project(job: Job[ProjectionSpec], cache: FeatureCache) -> None:
    """Project representations of some classes of one split and write the artefact.

    `coordinates.parquet` has one row per image, in the order of the cache: `sample_id`, `label`, `class_name`,
    `tsne_x`, `tsne_y`, `umap_x`, `umap_y` (float32).

    A small set lowers perplexity and neighbourhood; the manifest's facts hold those that were used.

    Parameters
    ----------
    job
        Its input: `dataset`.
    cache
        The view `eval` of the split.

    Raises
    ------
    PipelineError
        For an unknown class, and for fewer than five images.
    """
    maps = job.spec.maps
    dataset = ImageDataset(job.input("dataset"), job.spec.split)
    label, sample_id = cache.read_all("label"), cache.read_all("sample_id")
    chosen = chosen_classes(dataset.classes, label, maps.classes, maps.class_count, dataset.name)
    rows = np.flatnonzero(np.isin(label, chosen))
    if len(rows) > maps.max_images:
        rows = np.sort(np.random.default_rng(maps.seed).choice(rows, maps.max_images, replace=False))
    if len(rows) < _FEWEST_IMAGES:
        raise PipelineError(
            f"projection of '{dataset.name}/{dataset.split}': {len(rows)} images, but at least {_FEWEST_IMAGES} are "
            "needed; choose more classes"
        )
    embedding = np.concatenate([cache.read("embedding", 0, row, row + 1) for row in rows.tolist()])
    points = reduced(embedding)
    # A third of the images at most, which is where scikit-learn's own choice of neighbours ends.
    perplexity, neighbours = min(maps.perplexity, (len(rows) - 1) / 3), min(maps.neighbours, len(rows) - 1)
    tsne = tsne_coordinates(points, perplexity, maps.seed)
    umap = umap_coordinates(points, neighbours, maps.seed)
    columns = {
        "sample_id": sample_id[rows],
        "label": label[rows],
        "class_name": [dataset.classes[row_label] for row_label in label[rows]],
        "tsne_x": tsne[:, 0],
        "tsne_y": tsne[:, 1],
        "umap_x": umap[:, 0],
        "umap_y": umap[:, 1],
    }
    with job.writing() as draft:
        pq.write_table(pa.table(columns), draft.path / COORDINATES)
        draft.facts.update(
            rows=len(rows),
            classes=[dataset.classes[label] for label in chosen],
            perplexity=perplexity,
            neighbours=neighbours,
        )


def chosen_classes(
    classes: Sequence[str], label: np.ndarray, wanted: Sequence[str] | None, count: int, dataset: str
) -> list[int]:
    """Return the labels of the wanted classes, or of the `count` classes that have most images, ties by name.

    label: int64 [n], positions in `classes`. Raises `PipelineError` naming a wanted class that is not there.
    """
    if wanted is None:
        images = np.bincount(label, minlength=len(classes))
        order = sorted(np.flatnonzero(images).tolist(), key=lambda position: (-images[position], classes[position]))
        return order[:count]
    for name in wanted:
        if name not in classes:
            raise PipelineError(
                f"projection: dataset '{dataset}' has no class '{name}'{did_you_mean(name, classes)}; "
                "name its classes, or null for those with most images"
            )
    return [list(classes).index(name) for name in wanted]


def reduced(embedding: np.ndarray) -> np.ndarray:
    """Return representations as unit vectors, and of these the first 50 principal components, float32 [n, <= 50].

    The squared Euclidean distance between unit vectors is 2 (1 - cosine), so Euclidean neighbours here are cosine
    neighbours. PCA keeps distances, while it would change cosines: it moves the origin.

    embedding: float [n, d].
    """
    from sklearn.decomposition import PCA

    values = embedding.astype(np.float64)
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    unit = values / np.where(norm > 0, norm, 1.0)
    components = min(_COMPONENTS, len(unit))
    if unit.shape[1] > components:
        unit = PCA(components, svd_solver="full").fit_transform(unit)
    return unit.astype(np.float32)


def tsne_coordinates(points: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """Return the t-SNE map of `points`, float [n, k], as float32 [n, 2]."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # Sums over threads come in any order, and t-SNE turns their last bits into other maps: one thread.
    with threadpool_limits(1):
        tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
        return tsne.fit_transform(points).astype(np.float32)


def umap_coordinates(points: np.ndarray, neighbours: int, seed: int) -> np.ndarray:
    """Return the UMAP map of `points`, float [n, k], as float32 [n, 2]."""
    from threadpoolctl import threadpool_limits
    from umap import UMAP

    with threadpool_limits(1):
        umap = UMAP(n_neighbors=neighbours, init="pca", random_state=seed, n_jobs=1)
        return umap.fit_transform(points).astype(np.float32)
