"""Retrieval by the nearest neighbour."""

from __future__ import annotations

import numpy as np


def neighbour_is_correct(label: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    """Return whether each image's nearest neighbour has its label, bool [n].

    label: int64 [n]. neighbour: int64 [n], positions. An image alone in its class can't be right: it counts as wrong.
    """
    return label[neighbour] == label


def recall_at_1(correct: np.ndarray) -> float:
    """Return Recall@1, the share of images whose nearest neighbour has their label. correct: bool [n]."""
    return float(np.mean(correct))
