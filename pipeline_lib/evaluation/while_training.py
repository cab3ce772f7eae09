"""How good classifier, representation and uncertainty are at one moment of their training."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from pipeline_lib.config.evaluation import Neighbours
from pipeline_lib.metrics.auroc import auroc
from pipeline_lib.metrics.retrieval import neighbour_is_correct, recall_at_1
from pipeline_lib.retrieval.search import nearest_neighbours
from pipeline_lib.training.images import ImageBatches
from pipeline_lib.training.trainer import Predict

_NEIGHBOUR_ROWS = 8192


def evaluate(predict: Predict, dim: int, batches: ImageBatches) -> dict[str, float | None]:
    """Return the metrics of the images of `batches`; dim: of the embedding.

    `top1`: accuracy of the classifier. `task_loss`: mean cross-entropy in nats. `r1`: Recall@1 by exact cosine
    1-NN. `auroc_classification`, `auroc_correct`: AUROC of u for "top-1 is wrong" and for "1-NN is wrong"; None where
    that is undefined, since all images are right or all are wrong.

    Holds the representations, float32 [n, d], in memory: 150 MB for 50,000 images and d = 768.
    """
    n, seen = len(batches.images), 0
    embedding: np.ndarray = np.empty((n, dim), np.float32)
    floats: np.ndarray = np.empty((2, n), np.float32)
    integers: np.ndarray = np.empty((2, n), np.int64)
    (uncertainty, task_loss), (label, predicted) = floats, integers
    with torch.inference_mode():
        for batch in batches.in_order():
            features, logits, u = predict(batch.pixels)
            rows = slice(seen, seen := seen + len(batch.label))
            embedding[rows] = features.float().cpu().numpy()
            uncertainty[rows] = u.cpu().numpy()
            task_loss[rows] = F.cross_entropy(logits, batch.label.to(logits.device), reduction="none").cpu().numpy()
            label[rows], predicted[rows] = batch.label.numpy(), logits.argmax(dim=1).cpu().numpy()
    # Fewer than n, where images could not be decoded.
    embedding, uncertainty, task_loss = embedding[:seen], uncertainty[:seen], task_loss[:seen]
    label, predicted = label[:seen], predicted[:seen]
    neighbours = nearest_neighbours(
        lambda start, stop: embedding[start:stop],
        seen,
        Neighbours(device=features.device.type, block_rows=_NEIGHBOUR_ROWS),
    )
    is_right = predicted == label
    neighbour_right = neighbour_is_correct(label, neighbours.index)
    name = batches.images.name
    return {
        "top1": float(np.mean(is_right)),
        "task_loss": float(np.mean(task_loss, dtype=np.float64)),
        "r1": recall_at_1(neighbour_right),
        "auroc_classification": _or_none(auroc(uncertainty, ~is_right, name)),
        "auroc_correct": _or_none(auroc(uncertainty, ~neighbour_right, name)),
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
