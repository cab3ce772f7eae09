"""Accuracy of the upstream classifier."""

from __future__ import annotations

import numpy as np


def top_k_accuracy(label_rank: np.ndarray, k: int) -> float:
    """Return the share of images whose class is among the k best-scored ones.

    label_rank: int [n], the number of classes that the classifier scores above the true one, or the same and which
    have a lower number.
    """
    return float(np.mean(label_rank < k))
