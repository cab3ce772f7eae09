"""Dividing the images of a dataset, or its classes, into splits by a seeded hash of their names.

Images (or classes) are put into the order of their hashes and cut into consecutive blocks, one per split in the order
of the splits' names. A block's size is the share of the split, rounded by largest remainders, within each class
(`by: image`) or over all classes (`by: class`). So the division depends on the seed, the shares and the names alone,
not on the order of a listing or of the config's keys.

What a new image changes (`by: image`): no image of another class moves. In its own class the blocks' ends shift, and
others move by that: with two splits at most one, with three at most four, however large the class. The same holds of
classes for a new class (`by: class`), where a new image of a known class moves nothing.

Rounding is by class, so shares of a whole dataset of tiny classes are less exact: of classes with two images each,
a split with a share of 0.1 gets none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction

import xxhash

from pipeline_lib.config.splitter import Splitter
from pipeline_lib.core.errors import PipelineError


def assign(label: Sequence[str], names: Sequence[str], splitter: Splitter, source: str = "split_by") -> list[str]:
    """Return the split of each image.

    Parameters
    ----------
    label : sequence of str [n]
        The name of each image's class.
    names : sequence of str [n]
        What tells each image from all others, such as its path.
    splitter : Splitter
        Shares of the splits, the seed, and whether images or classes are divided.
    source : str
        What messages call the dataset.

    Raises
    ------
    PipelineError
        A name occurs twice, so that an image could be trained and tested on; or a split gets no images.
    """
    if len(set(names)) < len(names):
        twice = next(name for name, times in Counter(names).items() if times > 1)
        raise PipelineError(f"{source}: image '{twice}' is listed twice, so split_by can't keep its splits disjoint")
    shares = _exact(splitter.shares)
    positions_of: dict[str, list[int]] = {}
    for position, name in enumerate(label):
        positions_of.setdefault(name, []).append(position)

    split = [""] * len(names)
    if splitter.by == "class":
        classes = sorted(positions_of, key=lambda name: _key(splitter.seed, name))
        for name, of_class in zip(classes, _blocks(len(classes), shares, splitter.seed, ""), strict=True):
            for position in positions_of[name]:
                split[position] = of_class
    else:
        for name, positions in positions_of.items():
            positions.sort(key=lambda position: _key(splitter.seed, names[position]))
            blocks = _blocks(len(positions), shares, splitter.seed, name)
            for position, of_image in zip(positions, blocks, strict=True):
                split[position] = of_image

    for name in sorted(set(shares).difference(split)):
        raise PipelineError(
            f"{source}: split '{name}' of split_by gets no images (share {splitter.shares[name]} by {splitter.by} of "
            f"{len(names)} images in {len(positions_of)} classes, of which the largest has "
            f"{max(map(len, positions_of.values()))} images; by image, each class is cut by itself); give it a larger "
            "share (of fit, another --test-share, or --unlabelled), or leave it out"
        )
    return split


def _exact(shares: Mapping[str, float]) -> dict[str, Fraction]:
    """Return the shares as the decimals that were written, sorted by name, so that equal remainders compare equal."""
    exact = {name: Fraction(repr(share)) for name, share in sorted(shares.items())}
    total = sum(exact.values())
    return {name: share / total for name, share in exact.items()}


def _blocks(number: int, shares: Mapping[str, Fraction], seed: int, group: str) -> list[str]:
    """Return `number` split names in consecutive blocks, sized by largest remainders.

    Equal remainders go by a hash of the group and the split, so that not all classes favour the same split.
    """
    size = {name: int(share * number) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: (size[name] - shares[name] * number, _key(seed, f"{group}\0{name}")))
    for name in by_remainder[: number - sum(size.values())]:
        size[name] += 1
    return [name for name in shares for _ in range(size[name])]


def _key(seed: int, name: str) -> tuple[int, str]:
    return xxhash.xxh3_128_intdigest(f"{seed}\0{name}".encode(errors="surrogateescape")), name
