"""Rows of features: one image in one epoch each, whatever blocks, chunks and format they are stored in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import xxhash

from pipeline_lib.core.errors import NotFiniteError

# Of an image, whatever the epoch.
IMAGE_ARRAYS = ("sample_id", "label")
_DIGEST_ROWS = 4096


class FeatureRows(Protocol):
    """The cached features that training reads."""

    rows: int  # images per epoch
    epochs: int  # cached epochs
    dim: int  # length of a representation

    def read(self, array: str, epoch: int, start: int, stop: int) -> np.ndarray:
        """Return rows [start, stop) of one epoch, in sample order; may be called from another thread.

        array: `embedding` (float16 or float32, [n, dim]) or `task_loss` (float32, [n]).
        """
        ...


def read_finite(rows: FeatureRows, array: str, epoch: int, start: int, stop: int) -> np.ndarray:
    """Read rows; raises `NotFiniteError` with the first one that holds NaN or infinity."""
    values = rows.read(array, epoch, start, stop)
    if _has_non_finite(values):
        faulty = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        row = start + int(np.flatnonzero(faulty)[0])
        raise NotFiniteError(
            f"{array} of epoch {epoch}, row {row} is NaN or infinite; look at that image and the backbone's precision, "
            f"then extract the features again",
            row,
        )
    return values


def digest_of_rows(arrays: Mapping[str, np.ndarray]) -> int:
    """Return the sum modulo 2^128 of the XXH3-128 checksums of the rows of a block.

    A row is all that is known of one image in one epoch, array by array in the order of their names. It holds its
    `sample_id` and `epoch`, so all rows differ, and the sum over all blocks of a view is the same however it is cut.

    Parameters
    ----------
    arrays
        [epochs, samples, ...]; of `IMAGE_ARRAYS` [samples], of `epoch` [epochs].
    """
    total, samples = 0, len(arrays["sample_id"])
    for position, epoch in enumerate(arrays["epoch"]):
        for start in range(0, samples, _DIGEST_ROWS):
            rows = slice(start, min(start + _DIGEST_ROWS, samples))
            columns = []
            for name, values in sorted(arrays.items()):
                if name == "epoch":
                    column = np.full(rows.stop - start, epoch)
                else:
                    column = values[rows] if name in IMAGE_ARRAYS else values[position, rows]
                columns.append(np.ascontiguousarray(column).reshape(len(column), -1).view(np.uint8))
            table = np.concatenate(columns, axis=1)
            total += sum(map(xxhash.xxh3_128_intdigest, table.view(f"V{table.shape[1]}")[:, 0].tolist()))
    return total % (1 << 128)


def _has_non_finite(values: np.ndarray) -> bool:
    """Return whether any value is NaN or infinite.

    Those have all exponent bits set, so read as integers they are the largest: as signed ones where the sign
    bit is clear, as unsigned ones where it is set. Two integer maxima are
    many times faster than np.isfinite on float16.
    """
    if not values.size:
        return False
    signed, unsigned = (np.dtype(f"{kind}{values.dtype.itemsize}") for kind in "iu")
    infinities = np.array([np.inf, -np.inf], values.dtype)
    return bool(
        values.view(signed).max() >= infinities.view(signed)[0]
        or values.view(unsigned).max() >= infinities.view(unsigned)[1]
    )
