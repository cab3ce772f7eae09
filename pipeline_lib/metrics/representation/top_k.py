"""Accuracy of the upstream classifier."""

from __future__ import annotations

import numpy as np

from pipeline_lib.metrics.metric import Metric


def top_k_accuracy(label_rank: np.ndarray, k: int) -> float:
    """Return the share of images whose class is among the k best-scored ones.

    label_rank: int [n], the number of classes that the classifier scores above the true one, or the same and which
    have a lower number.
    """
    return float(np.mean(label_rank < k))


METRICS = (
    Metric(
        "top1",
        "Top-1",
        "higher",
        "Share of images whose class the classifier scores highest.",
        lambda label_rank: top_k_accuracy(label_rank, 1),
        ("label_rank",),
    ),
    Metric(
        "top5",
        "Top-5",
        "higher",
        "Share of images whose class is among the five that the classifier scores highest.",
        lambda label_rank: top_k_accuracy(label_rank, 5),
        ("label_rank",),
    ),
)
