"""The soft nearest neighbour loss: how little of the neighbours' similarity an image shares its label with.

With s(a, b) the cosine of two representations, tau the temperature, z_i(e) the representation of image i in cached
epoch e, y_i its label, and R a fixed sample of images:

    l_i(e) = ln sum_{j in R, j != i} exp(s(z_i(e), z_j(e)) / tau)
             - ln sum_{j in R, j != i, y_j = y_i} exp(s(z_i(e), z_j(e)) / tau)

which is -ln P that a neighbour drawn by similarity has the label (Goldberger et al., Neighbourhood Components Analysis,
2004, eq. 1 and 6; Frosst, Papernot, Hinton, Analyzing and Improving Representations with the Soft Nearest Neighbor
Loss, 2019). Without another image of its class in R the second term is -1 / tau: the image has the largest loss that
one such image, anywhere, could leave it with.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline_lib.config.task_losses import ComparisonOptions

if TYPE_CHECKING:
    import torch

    from pipeline_lib.features.rows import FeatureRows

LEARNT_FROM = (
    "It was learnt from upstream images whose\n"
    "neighbours have another label, without a classifier; a category that looks crisp and is new may seem certain."
)


class Options(ComparisonOptions):
    """How images are compared."""

    kind: Literal["knn"] = "knn"


def losses(rows: FeatureRows, options: Options, device: torch.device) -> Iterator[np.ndarray]:
    """Yield the losses of consecutive rows of all epochs, float32, in pieces.

    R is drawn by class: two images of as many classes as it has room for, then of each class one more in turns.
    Raises `PipelineError` for a representation that is not finite, naming its row.
    """
    import torch

    from pipeline_lib.task_losses.comparison import chosen_unit_rows, similarities

    label = rows.read("label", 0, 0, rows.rows)
    chosen = _drawn_by_class(label, options)
    of_references = torch.from_numpy(label[chosen]).to(device)
    for epoch in range(rows.epochs):
        references = chosen_unit_rows(rows, epoch, chosen, device)
        for start, unit, similarity in similarities(rows, epoch, chosen, references, options.temperature):
            mine = torch.from_numpy(label[start : start + len(unit)]).to(device)
            other_class = mine[:, None] != of_references
            everything = torch.logsumexp(similarity, dim=1)
            same_class = torch.logsumexp(similarity.masked_fill_(other_class, -torch.inf), dim=1)
            same_class = torch.where(same_class.isinf(), -1 / options.temperature, same_class)
            # A share of all similarity is at most 1; rounding must not make it more.
            yield torch.clamp(everything - same_class, min=0).cpu().numpy()


def warning(rows: FeatureRows, options: Options) -> str | None:
    """Return what to do about images that are compared with no other image of their class, if there are any."""
    label = rows.read("label", 0, 0, rows.rows)
    alone = images_without_partner(label, options)
    if not alone:
        return None
    return (
        f"{alone:,} of {rows.rows:,} images have no other image of their class among the {options.images:,} "
        "that they are compared with, and get the largest loss that one could leave them with; set "
        f"task_losses.images to at least twice the number of classes ({len(np.unique(label)):,})"
    )


def images_without_partner(label: np.ndarray, options: Options) -> int:
    """Return how many images are compared with no other image of their class; label: int64 [n]."""
    chosen = _drawn_by_class(label, options)
    partners = np.bincount(label[chosen], minlength=label.max() + 1)[label]
    partners[chosen] -= 1
    return int((partners == 0).sum())


def _drawn_by_class(label: np.ndarray, options: Options) -> np.ndarray:
    """Return at most `images` rows, ascending, int64.

    First come pairs, each of another class, for an image needs another one of its class; then, in turns, one more
    image of each class that has one. Which classes and images they are is drawn by the seed.
    """
    # 32 bits do for positions and labels, and half the memory.
    label, position = label.astype(np.int32), np.arange(len(label), dtype=np.int32)
    shuffled = np.random.default_rng(options.seed).permutation(position)
    by_class = shuffled[np.argsort(label[shuffled], kind="stable")]
    ordered = label[by_class]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1)).astype(np.int32)
    sizes = np.diff(starts, append=np.int32(len(label)))
    first = np.repeat(starts, sizes)
    turn = np.maximum(position - first, 1)
    turn[starts[sizes == 1]] = 2
    # Within a turn, in the order of the shuffle: a sample that ends amid a turn must not prefer small labels. A pair
    # stands where its first image does, so that none is torn but the last.
    rank = np.empty_like(position)
    rank[shuffled] = position
    rank = rank[by_class[np.where(turn == 1, first, position)]]
    return np.sort(by_class[np.lexsort((rank, turn))][: options.images]).astype(np.int64)
