"""How published datasets that come without split files are divided: pure functions of counts and labels.

Positions are those of a list in the dataset's own order: classes sorted, images sorted by name within their class.
"""

from __future__ import annotations

import numpy as np


def class_halves(n_classes: int) -> np.ndarray:
    """Return which of the sorted classes are for development, bool [n_classes]: the first half.

    The others are the test classes, one more than the development classes where the number is odd.
    """
    return np.arange(n_classes) < n_classes // 2


def within_class_train(n: int) -> np.ndarray:
    """Return the positions, int64 [n // 2], of the training images among the n of a development class.

    They are evenly spaced from the first to the last image: unique(round(linspace(0, n - 1, n // 2))), with halves
    rounded to the even number. The other images are for validation.
    """
    return np.unique(np.round(np.linspace(0, n - 1, n // 2)).astype(np.int64))


def within_class_train_of(label: np.ndarray) -> np.ndarray:
    """Apply `within_class_train` to every class; label: int [n]; returns whether each image is for training, bool."""
    rank, size = rank_in_class(label)
    chosen = {n: set(within_class_train(n).tolist()) for n in set(size.tolist())}
    return np.array([r in chosen[n] for r, n in zip(rank.tolist(), size.tolist(), strict=True)], dtype=bool)


def train_on_test(label: np.ndarray) -> np.ndarray:
    """Return which test images make up `trainontest`, bool [n]; label: int [n]. The others make up `testontest`.

    They are the images at even positions (0, 2, ...) of their class.
    """
    return rank_in_class(label)[0] % 2 == 0


def few_shot(label: np.ndarray, k: int) -> np.ndarray:
    """Return which images to keep, bool [n], so that each class has at most k; label: int [n].

    Of a class with m images, those at its positions 0, s, 2 s, ..., (k - 1) s are kept, where the stride s is
    m // k; a class with at most k images is kept whole. Each class keeps exactly min(m, k) images, whatever the
    other classes are and however their images are interleaved.
    """
    rank, size = rank_in_class(label)
    stride = np.maximum(size // k, 1)
    return (rank % stride == 0) & (rank // stride < k)


def rank_in_class(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's position within its class and the size of that class, both int64 [n]; label: int [n]."""
    _, class_of, size = np.unique(label, return_inverse=True, return_counts=True)
    order = np.argsort(class_of, kind="stable")
    first = np.cumsum(size) - size
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - first[class_of[order]]
    return rank, size[class_of].astype(np.int64)
