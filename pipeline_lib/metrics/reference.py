"""What the reference code of the paper computes where that differs from the definition, to compare numbers with it."""

from __future__ import annotations

import numpy as np

from pipeline_lib.metrics.auroc import auroc
from pipeline_lib.metrics.metric import Metric

_EQUAL = 1 - 1e-12  # cosine similarity from which two representations count as the same


def auroc_reference(uncertainty: np.ndarray, is_positive: np.ndarray, dataset: str) -> float:
    """Return the AUROC as torchmetrics computes it from scores, which it takes for logits unless all lie in [0, 1].

    The scores become float32. When any is outside [0, 1], all pass a float32 sigmoid first; it is one for every score
    above 17 and zero for every one below -89, so that large uncertainties tie. The area is by trapezoids, so ties
    count half. torchmetrics also sums in float32, which moves its value by about 1e-6; that isn't imitated.

    Arguments, NaN and errors: as in `auroc`.
    """
    with np.errstate(over="ignore"):  # infinity is fine in float32, and as exp where the sigmoid is zero
        scores = np.asarray(uncertainty, dtype=np.float32)
        if not ((scores >= 0) & (scores <= 1)).all():
            scores = np.float32(1) / (np.float32(1) + np.exp(-scores))
    return auroc(scores, is_positive, dataset)


def neighbour_reference(neighbour: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """Return the second of each image's two best hits in a search that has the image itself among the gallery.

    The reference takes the second hit for the nearest other image, on the assumption that the image itself is the
    first. Hits of equal similarity come in order of index, so an image with a copy of lower index is no longer first:
    of two copies, the second is left with itself, which then counts as right.

    neighbour: int64 [n], position of the nearest other image, of equal ones the lowest. similarity: float64 [n], to it.
    Returns positions, int64 [n].
    """
    index = np.arange(len(neighbour))
    follows_a_copy = (similarity >= _EQUAL) & (neighbour < index)
    # The first hit is the first copy. The second hit is the copy after it, which is the first copy's own neighbour.
    return np.where(follows_a_copy, neighbour[neighbour], neighbour)


METRICS = (
    Metric(
        "reference_auroc_correct",
        "R-AUROC (reference)",
        "higher",
        "R-AUROC as the reference code computes it: uncertainties outside [0, 1] pass a float32 sigmoid, and the "
        "second of two equal images finds itself.",
        auroc_reference,
        ("reference_uncertainty", "reference_wrong", "dataset"),
        is_shown=False,
    ),
)
