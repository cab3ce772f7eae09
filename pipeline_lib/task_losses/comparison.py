"""Comparing images of a view by their representations: cosine similarities, piece by piece.

An image is never compared with itself, by its row. Time is O(rows |R| d) for |R| images to compare with, memory
O(|R| d).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.features.rows import FeatureRows, read_finite

_PIECE_PRODUCTS = 1 << 23  # similarities held at a time: 32 MB
_READ_ROWS = 4096


def similarities(
    rows: FeatureRows, epoch: int, chosen: np.ndarray, references: Tensor, temperature: float
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Compare the rows of an epoch with some images, piece by piece.

    Parameters
    ----------
    rows, epoch
        Whose representations are compared.
    chosen
        Rows of the images to compare with, ascending, int64 [|R|].
    references
        Their representations at length one, float32 [|R|, d]; pieces are on the same device.
    temperature
        tau, by which similarities are divided.

    Yields
    ------
    The first row of a piece, its rows at length one [n, d], and their similarities / tau [n, |R|], float32. An image's
    similarity with itself is -inf.
    """
    device = references.device
    size = max(1, min(_READ_ROWS, _PIECE_PRODUCTS // len(chosen)))
    for start in range(0, rows.rows, size):
        unit = unit_rows(rows, epoch, start, min(start + size, rows.rows), device)
        similarity = (unit @ references.T).div_(temperature)
        first, last = np.searchsorted(chosen, [start, start + len(unit)])
        column = torch.arange(first, last, device=device)
        similarity[torch.from_numpy(chosen[first:last] - start).to(device), column] = -torch.inf
        yield start, unit, similarity


def chosen_unit_rows(rows: FeatureRows, epoch: int, chosen: np.ndarray, device: torch.device) -> Tensor:
    """Return ascending rows of an epoch at length one, float32 [m, d]."""
    # Into one block: small ones that stay, between large ones that go, would leave the heap in pieces of no use, a
    # gigabyte for each million images.
    found = torch.empty(len(chosen), rows.dim, device=device)
    for start in range(0, rows.rows, _READ_ROWS):
        first, last = np.searchsorted(chosen, [start, start + _READ_ROWS])
        if first < last:
            unit = unit_rows(rows, epoch, start, min(start + _READ_ROWS, rows.rows), device)
            found[first:last] = unit[torch.from_numpy(chosen[first:last] - start).to(device)]
    return found


def unit_rows(rows: FeatureRows, epoch: int, start: int, stop: int, device: torch.device) -> Tensor:
    """Return rows [start, stop) at length one, float32; zero vectors stay zero.

    Raises `NotFiniteError` for a representation that is not finite.
    """
    values = torch.from_numpy(read_finite(rows, "embedding", epoch, start, stop)).to(device).float()
    return torch.nn.functional.normalize(values, dim=1, eps=1e-30)
