"""Losses of single images that need no classifier: distances to the other images of an augmented view.

With s(a, b) the cosine of two representations, tau the temperature, z_i(e) the representation of image i in cached
epoch e, y_i its label, and R a fixed sample of images:

    knn           l_i(e) = ln sum_{j in R, j != i} exp(s(z_i(e), z_j(e)) / tau)
                           - ln sum_{j in R, j != i, y_j = y_i} exp(s(z_i(e), z_j(e)) / tau)

the soft nearest neighbour loss, which is -ln P that a neighbour drawn by similarity has the label (Goldberger et al.,
Neighbourhood Components Analysis, 2004, eq. 1 and 6; Frosst, Papernot, Hinton, Analyzing and Improving Representations
with the Soft Nearest Neighbor Loss, 2019). Without another image of its class in R the second term is -1 / tau: the
image has the largest loss that one such image, anywhere, could leave it with.

    contrastive   l_i(e) = ln (exp(s_i / tau) + sum_{j in R, j != i} exp(s(z_i(e), z_j(e')) / tau)) - s_i / tau

with e' = e + 1, the first epoch after the last, and s_i = s(z_i(e), z_i(e')): InfoNCE between two augmentations (van
den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, eq. 4). It reads no label.

An image is never compared with itself, by its row. Time is O(rows |R| d), memory O(|R| d).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.core.errors import NotFiniteError, PipelineError
from pipeline_lib.heads.stream import FeatureRows

_PIECE_PRODUCTS = 1 << 23  # similarities held at a time: 32 MB
_READ_ROWS = 4096


@dataclass(frozen=True)
class Comparison:
    """How images are compared: `temperature`, and with how many others (`images`), which `seed` chooses."""

    temperature: float
    images: int
    seed: int


def knn_losses(
    rows: FeatureRows, epoch: int, label: np.ndarray, comparison: Comparison, device: torch.device
) -> Iterator[np.ndarray]:
    """Yield the loss `knn` of consecutive rows of an epoch, float32, in pieces; label: int64 [n].

    R is drawn by class: two images of as many classes as it has room for, then of each class one more in turns.
    Raises `PipelineError` for a representation that is not finite, naming its row.
    """
    chosen = _drawn_by_class(label, comparison)
    references = _unit_rows(rows, epoch, chosen, device)
    of_references = torch.from_numpy(label[chosen]).to(device)
    for start, unit, similarity in _similarities(rows, epoch, chosen, references, comparison, device):
        mine = torch.from_numpy(label[start : start + len(unit)]).to(device)
        other_class = mine[:, None] != of_references
        everything = torch.logsumexp(similarity, dim=1)
        same_class = torch.logsumexp(similarity.masked_fill_(other_class, -torch.inf), dim=1)
        same_class = torch.where(same_class.isinf(), -1 / comparison.temperature, same_class)
        # A share of all similarity is at most 1; rounding must not make it more.
        yield torch.clamp(everything - same_class, min=0).cpu().numpy()


def contrastive_losses(
    rows: FeatureRows, epoch: int, comparison: Comparison, device: torch.device
) -> Iterator[np.ndarray]:
    """Yield the loss `contrastive` of consecutive rows of an epoch, float32, in pieces.

    Raises `PipelineError` when there is only one epoch, and for a representation that is not finite.
    """
    if rows.epochs < 2:
        raise PipelineError(
            "task_loss 'contrastive' compares two augmentations of an image, but the view has 1 epoch; "
            "set its epochs to at least 2"
        )
    partner = (epoch + 1) % rows.epochs
    count = min(rows.rows, comparison.images)
    chosen = np.sort(np.random.default_rng(comparison.seed).permutation(rows.rows)[:count])
    references = _unit_rows(rows, partner, chosen, device)
    for start, unit, similarity in _similarities(rows, epoch, chosen, references, comparison, device):
        other = _unit(rows, partner, start, start + len(unit), device)
        own = (unit * other).sum(dim=1) / comparison.temperature
        yield (torch.logaddexp(own, torch.logsumexp(similarity, dim=1)) - own).cpu().numpy()


def losses_of(
    kind: str, rows: FeatureRows, label: np.ndarray, comparison: Comparison, device: torch.device
) -> Callable[[int], Iterator[np.ndarray]]:
    """Return a function that yields the losses of an epoch, in pieces; kind: `knn` or `contrastive`."""
    if kind == "knn":
        return lambda epoch: knn_losses(rows, epoch, label, comparison, device)
    if kind == "contrastive":
        return lambda epoch: contrastive_losses(rows, epoch, comparison, device)
    raise PipelineError(f"task_loss '{kind}' is not computed from representations; allowed: knn, contrastive")


def images_without_partner(label: np.ndarray, comparison: Comparison) -> int:
    """Return how many images `knn_losses` compares with no other image of their class; label: int64 [n]."""
    chosen = _drawn_by_class(label, comparison)
    _, of_class = np.unique(label, return_inverse=True)
    partners = np.bincount(of_class[chosen], minlength=of_class.max() + 1)[of_class]
    partners[chosen] -= 1
    return int((partners == 0).sum())


def _drawn_by_class(label: np.ndarray, comparison: Comparison) -> np.ndarray:
    """Return at most `images` rows, ascending, int64.

    First come pairs, each of another class, for an image needs another one of its class; then, in turns, one more
    image of each class that has one. Which classes and images they are is drawn by the seed.
    """
    shuffled = np.random.default_rng(comparison.seed).permutation(len(label))
    by_class = shuffled[np.argsort(label[shuffled], kind="stable")]
    ordered = label[by_class]
    first = np.searchsorted(ordered, ordered, side="left")
    is_alone = np.searchsorted(ordered, ordered, side="right") - first == 1
    position = np.arange(len(label))
    turn = np.where(is_alone, 2, np.maximum(position - first, 1))
    # Within a turn, in the order of the shuffle: a sample that ends amid a turn must not prefer small labels. A pair
    # stands where its first image does, so that none is torn but the last.
    place = np.empty(len(label), np.int64)
    place[shuffled] = position
    place = place[by_class[np.where(turn == 1, first, position)]]
    return np.sort(by_class[np.lexsort((place, turn))][: comparison.images])


def _similarities(
    rows: FeatureRows,
    epoch: int,
    chosen: np.ndarray,
    references: Tensor,
    comparison: Comparison,
    device: torch.device,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield, piece by piece, the first row, the rows at length one, and their similarities / tau, float32 [n, |R|].

    An image's similarity with itself is -inf.
    """
    size = max(1, min(_READ_ROWS, _PIECE_PRODUCTS // len(chosen)))
    for start in range(0, rows.rows, size):
        unit = _unit(rows, epoch, start, min(start + size, rows.rows), device)
        similarity = (unit @ references.T).div_(comparison.temperature)
        first, last = np.searchsorted(chosen, [start, start + len(unit)])
        column = torch.arange(first, last, device=device)
        similarity[torch.from_numpy(chosen[first:last] - start).to(device), column] = -torch.inf
        yield start, unit, similarity


def _unit_rows(rows: FeatureRows, epoch: int, chosen: np.ndarray, device: torch.device) -> Tensor:
    """Return ascending rows of an epoch at length one, float32 [m, d]."""
    pieces = []
    for start in range(0, rows.rows, _READ_ROWS):
        inside = chosen[(chosen >= start) & (chosen < start + _READ_ROWS)]
        if len(inside):
            unit = _unit(rows, epoch, start, min(start + _READ_ROWS, rows.rows), device)
            pieces.append(unit[torch.from_numpy(inside - start).to(device)])
    return torch.cat(pieces)


def _unit(rows: FeatureRows, epoch: int, start: int, stop: int, device: torch.device) -> Tensor:
    """Return rows [start, stop) at length one, float32; zero vectors stay zero."""
    values = torch.from_numpy(rows.read("embedding", epoch, start, stop)).to(device).float()
    finite = values.isfinite().all(dim=1)
    if not finite.all():
        row = start + int(torch.argmin(finite.int()))
        raise NotFiniteError(
            f"embedding of epoch {epoch}, row {row} is NaN or infinite; look at that image and the backbone's "
            "precision, then extract the features again",
            row,
        )
    return torch.nn.functional.normalize(values, dim=1, eps=1e-30)
