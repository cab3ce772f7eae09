"""Pictures that look alike though their pixels differ: resized, recompressed, slightly edited copies.

Each has a perceptual hash of 256 bits: the signs of its lowest 16 x 16 frequencies about their median. On photographs
the hash of a copy at half the size, saved anew as JPEG, differs in at most 6 bits, that of another picture in more than
40. Pictures of 32 pixels lose too much when they are resized to be found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

LOOK_BYTES = 32
_SIDE = 16
_FURTHEST_BITS = 20
# Every picture is compared with every other: beyond this many pairs (a minute) none is.
_MOST_PAIRS = 10**10


def look_of(image: Image) -> bytes:
    """Return the perceptual hash of an image, 32 bytes; zeros for one of a single colour, which looks like nothing."""
    import imagehash

    low, high = image.convert("L").getextrema()
    if low == high:
        return bytes(LOOK_BYTES)
    return np.packbits(imagehash.phash(image, hash_size=_SIDE).hash.ravel()).tobytes()


def twins(look: np.ndarray, digest: np.ndarray, other_look: np.ndarray, other_digest: np.ndarray) -> np.ndarray | None:
    """Return for each image another one that looks alike and has other pixels, int64 [n]; -1 = there is none.

    Parameters
    ----------
    look, digest : uint8 [n, 32], bytes [n]
        Of the images.
    other_look, other_digest : uint8 [m, 32], bytes [m]
        Of those to look among, which may be the same.

    Returns
    -------
    int64 [n] or None
        The first that fits; None where there are too many to compare.
    """
    import faiss

    if len(look) * len(other_look) > _MOST_PAIRS:
        return None
    found = np.full(len(look), -1, np.int64)
    mine, others = (np.flatnonzero(values.any(axis=1)) for values in (look, other_look))
    if not len(mine) or not len(others):
        return found
    # Each hash once, with two images of other pixels: one of them has other pixels than any image.
    distinct, of_other = np.unique(other_look[others], axis=0, return_inverse=True)
    shown: list[list[int]] = [[] for _ in distinct]
    for row, number in zip(others.tolist(), of_other.reshape(-1).tolist(), strict=True):
        rows = shown[number]
        if not rows or (len(rows) == 1 and other_digest[row] != other_digest[rows[0]]):
            rows.append(row)
    asked, of_mine = np.unique(look[mine], axis=0, return_inverse=True)
    index = faiss.IndexBinaryFlat(8 * LOOK_BYTES)
    index.add(np.ascontiguousarray(distinct))
    ends, _, near = index.range_search(np.ascontiguousarray(asked), _FURTHEST_BITS + 1)
    alike = [sorted(row for number in near[ends[i] : ends[i + 1]] for row in shown[number]) for i in range(len(asked))]
    for row, number in zip(mine.tolist(), of_mine.reshape(-1).tolist(), strict=True):
        found[row] = next((other for other in alike[number] if other_digest[other] != digest[row]), -1)
    return found
