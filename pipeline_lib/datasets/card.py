"""What a dataset card says: counts, image sizes, what can't be read, and what occurs twice, here or upstream.

Images are decoded one by one; a 128-bit hash of the pixels, the size and the position of each stay in memory.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.progress import Progress
from pipeline_lib.datasets.base import UnreadableImageError
from pipeline_lib.datasets.images import STAGE, ImageDataset

if TYPE_CHECKING:
    from PIL.Image import Image

EXAMPLES = 20
_GROUP_EXAMPLES = 5
_QUANTILES = {"min": 0.0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1.0}

# The splits of one dataset, by name.
Splits = Mapping[str, ImageDataset]


@dataclass(frozen=True)
class Measured:
    """The images of a split that were decoded.

    tried: how many images of the split were to be decoded.
    position: int64 [m], the place in `images` of each that could be, ascending.
    digest: bytes [m] of 16 each, from `pixel_hash`. size: int32 [m, 2], width and height.
    unreadable: location and reason of each image that couldn't be decoded.
    """

    images: ImageDataset
    tried: int
    position: np.ndarray
    digest: np.ndarray
    size: np.ndarray
    unreadable: list[dict[str, str]]

    def class_of(self, row: int) -> str:
        """Return the name of the class of a decoded image."""
        return self.images.classes[int(self.images.label[self.position[row]])]

    def location(self, row: int) -> str:
        """Return where a decoded image is."""
        return self.images.location(int(self.position[row]))

    def describe(self, row: int) -> dict[str, str]:
        """Return location and class of a decoded image."""
        return {"image": self.location(row), "class": self.class_of(row)}


def open_splits(directory: Path) -> Splits:
    """Open every split of a dataset artefact; raises `PipelineError` for anything else."""
    manifest = artefacts.read(directory, STAGE)
    return {split: ImageDataset(directory, split) for split in sorted(manifest.facts["splits"])}


def name_of(splits: Splits) -> str:
    """Return the name of a dataset."""
    return next(iter(splits.values())).name


def digest_of(splits: Splits) -> str:
    """Return the digest of a dataset's manifest."""
    return next(iter(splits.values())).manifest.digest


@dataclass(frozen=True)
class Measurements:
    """What a card is made from: every split of some datasets and of the upstream set (None: there is none)."""

    datasets: list[dict[str, Measured]]
    upstream: dict[str, Measured] | None
    max_images: int | None
    seed: int


def measure_datasets(
    datasets: Sequence[Splits],
    upstream: Splits | None = None,
    max_images: int | None = None,
    seed: int = 0,
    known: dict[str, Measured] | None = None,
) -> Measurements:
    """Decode the images of some datasets, and of the upstream set unless it is `known` from an earlier card.

    upstream: the set that a model is trained on; images of it that occur in the datasets are counted.
    max_images: decode this many images per split, drawn by `seed`; None = all.
    Raises `PipelineError` for two datasets of the same name.
    """
    for name, times in Counter(map(name_of, datasets)).items():
        if times > 1:
            raise PipelineError(f"--dataset: '{name}' is given {times} times; give each dataset once")
    reference = known if known or upstream is None else _measure_splits(upstream, max_images, seed)
    same = [upstream is not None and digest_of(splits) == digest_of(upstream) for splits in datasets]
    measured = [
        reference if is_upstream else _measure_splits(splits, max_images, seed)
        for splits, is_upstream in zip(datasets, same, strict=True)
    ]
    return Measurements(measured, reference, max_images, seed)


def build_card(measured: Measurements) -> dict[str, Any]:
    """Return the card of some datasets, as JSON can hold it.

    Counts and entropies of labels and votes need no decoding and are always of all images.
    """
    upstream, facts = measured.upstream, None
    if upstream is not None:
        counts = {split: {"images": len(each.images), "decoded": each.tried} for split, each in upstream.items()}
        facts = {"name": next(iter(upstream.values())).images.name, "splits": counts}
    cards = [_dataset_card(each, None if each is upstream else upstream) for each in measured.datasets]
    return {"max_images": measured.max_images, "seed": measured.seed, "upstream": facts, "datasets": cards}


def measure(images: ImageDataset, max_images: int | None = None, seed: int = 0) -> Measured:
    """Decode the images of a split, or `max_images` of them drawn by `seed`."""
    chosen = np.arange(len(images))
    if max_images is not None and max_images < len(images):
        chosen = np.sort(generator(images, seed).choice(len(images), max_images, replace=False))
    digest = np.zeros(len(chosen), "S16")
    size = np.zeros((len(chosen), 2), np.int32)
    readable = np.zeros(len(chosen), bool)
    unreadable = []
    with Progress(len(chosen), description=f"{images.name}/{images.split}") as progress:
        for row, position in enumerate(chosen.tolist()):
            try:
                image = images.image(position)
            except UnreadableImageError as error:
                location = images.location(position)
                unreadable.append({"image": location, "reason": _reason(str(error), location)})
            else:
                digest[row], size[row], readable[row] = pixel_hash(image), image.size, True
            progress.advance(1)
    return Measured(images, len(chosen), chosen[readable], digest[readable], size[readable], unreadable)


def generator(images: ImageDataset, seed: int) -> np.random.Generator:
    """Return a generator of a split's own: splits of the same size don't show the same positions."""
    return np.random.default_rng([seed, *f"{images.name}/{images.split}".encode()])


def pixel_hash(image: Image) -> bytes:
    """Return the XXH3-128 hash of an image's size and RGB pixels: the file format and its metadata don't matter."""
    digest = xxhash.xxh3_128(f"{image.width}x{image.height}:".encode())
    digest.update(image.tobytes())
    return digest.digest()


def label_facts(images: ImageDataset) -> dict[str, Any]:
    """Return the counts of a split and the entropy of its labels, -sum_c p_c ln p_c in nats.

    The counts per class are of the classes that have images in this split.
    """
    counts = np.bincount(images.label, minlength=len(images.classes))
    present = counts[counts > 0]
    share = present / present.sum()
    return {
        "images": len(images),
        "classes": len(present),
        "counts": {images.classes[c]: int(counts[c]) for c in np.flatnonzero(counts)},
        "per_class": {"min": int(present.min()), "median": float(np.median(present)), "max": int(present.max())},
        "one_image_classes": [images.classes[c] for c in np.flatnonzero(counts == 1)],
        "label_entropy": float(-(share * np.log(share)).sum()) + 0.0,
    }


def vote_facts(images: ImageDataset) -> dict[str, Any] | None:
    """Return how far people disagree on the images of a split, in nats; None where no image has votes."""
    entropy = images.vote_entropy()
    entropy = np.empty(0) if entropy is None else entropy[~np.isnan(entropy)]
    if not entropy.size:
        return None
    return {
        "images": len(entropy),
        "unanimous": int((entropy == 0).sum()),
        "mean": float(entropy.mean()),
        "median": float(np.median(entropy)),
        "max": float(entropy.max()),
    }


def size_facts(measured: Measured) -> dict[str, Any] | None:
    """Return quantiles of width and height, each the size of some image; None where no image was decoded."""
    if not len(measured.size):
        return None
    sizes, counts = np.unique(measured.size, axis=0, return_counts=True)
    facts: dict[str, Any] = {"distinct": len(sizes)}
    for column, side in enumerate(("width", "height")):
        values = np.quantile(measured.size[:, column], list(_QUANTILES.values()), method="inverted_cdf")
        facts[side] = dict(zip(_QUANTILES, map(int, values), strict=True))
    width, height = sizes[counts.argmax()].tolist()
    return facts | {"commonest": {"width": width, "height": height, "images": int(counts.max())}}


def duplicates(measured: Measured) -> dict[str, Any]:
    """Return what occurs more than once in a split.

    groups: sets of images with the same pixels. redundant: images that repeat an earlier one. other_class: groups
    whose images have different labels. examples: the first groups, with some of their images.
    """
    inverse, counts = np.unique(measured.digest, return_inverse=True, return_counts=True)[1:]
    members = np.flatnonzero(counts[inverse] > 1)
    members = members[np.argsort(inverse[members], kind="stable")]
    groups = np.split(members, np.flatnonzero(np.diff(inverse[members])) + 1) if len(members) else []
    groups.sort(key=lambda group: group[0])
    label = measured.images.label[measured.position]
    return {
        "groups": len(groups),
        "redundant": len(members) - len(groups),
        "other_class": sum(bool((label[group] != label[group[0]]).any()) for group in groups),
        "examples": [
            {"times": len(group), "images": [measured.describe(row) for row in group[:_GROUP_EXAMPLES]]}
            for group in groups[:EXAMPLES]
        ],
    }


def shared(one: Measured, other: Measured) -> tuple[np.ndarray, dict[str, Any]]:
    """Return which images of `one` occur in `other`, bool [m], and what there is to say about them.

    other_class: how many of them have no twin there whose class has the same name.
    """
    common = np.intersect1d(one.digest, other.digest)
    twin: dict[bytes, int] = {}
    classes: dict[bytes, set[str]] = {}
    for row in np.flatnonzero(np.isin(other.digest, common)).tolist():
        twin.setdefault(other.digest[row], row)
        classes.setdefault(other.digest[row], set()).add(other.class_of(row))
    found = np.isin(one.digest, common)
    rows = np.flatnonzero(found).tolist()
    examples = [(row, twin[one.digest[row]]) for row in rows[:EXAMPLES]]
    return found, {
        "dataset": other.images.name,
        "split": other.images.split,
        "images": len(rows),
        "other_class": sum(one.class_of(row) not in classes[one.digest[row]] for row in rows),
        "examples": [
            one.describe(a) | {"twin": other.location(b), "twin_class": other.class_of(b)} for a, b in examples
        ],
    }


def _dataset_card(measured: Mapping[str, Measured], upstream: Mapping[str, Measured] | None) -> dict[str, Any]:
    images = next(iter(measured.values())).images
    card = {"name": images.name, "classes": len(images.classes), "skip_unreadable": images.skip_unreadable}
    splits = {}
    for split, one in measured.items():
        others = [other for name, other in measured.items() if name != split]
        splits[split] = label_facts(one.images) | {
            "votes": vote_facts(one.images),
            "decoded": one.tried,
            "unreadable": one.unreadable,
            "sizes": size_facts(one),
            "duplicates": duplicates(one),
            "other_splits": _leaks(one, others),
            "upstream": None if upstream is None else _leaks(one, list(upstream.values())),
        }
    return card | {"splits": splits}


def _leaks(one: Measured, others: Sequence[Measured]) -> dict[str, Any]:
    """Return how many images occur in any of several splits, and what each of these holds of them."""
    found = [shared(one, other) for other in others]
    anywhere = np.logical_or.reduce([mask for mask, _ in found]) if found else np.zeros(0, bool)
    return {"images": int(anywhere.sum()), "in": [facts for _, facts in found]}


def _measure_splits(splits: Splits, max_images: int | None, seed: int) -> dict[str, Measured]:
    return {split: measure(images, max_images, seed) for split, images in splits.items()}


def _reason(message: str, location: str) -> str:
    """Return why an image can't be read, without what differs between two runs: folders and memory addresses."""
    folder, found, reason = message.partition(f"{location}: ")
    if found:
        message = reason.replace(folder, "") if folder else reason
    return re.sub(r" at 0x[0-9a-f]+", "", message)
