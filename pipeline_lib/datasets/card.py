"""What a dataset card says: counts, image sizes, what can't be read, and what occurs twice, here or upstream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.looks import twins
from pipeline_lib.datasets.pixels import Measured, MeasuredSplits, Splits, identity, measure_splits

EXAMPLES = 20
_GROUP_EXAMPLES = 5
_QUANTILES = {"min": 0.0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1.0}


def measure_datasets(
    datasets: Sequence[Splits],
    upstream: Splits | None = None,
    max_images: int | None = None,
    seed: int = 0,
    known: MeasuredSplits | None = None,
) -> tuple[list[MeasuredSplits], MeasuredSplits | None]:
    """Decode the images of some datasets, and of the upstream set unless it is known from an earlier card.

    Parameters
    ----------
    datasets : sequence of Splits
        What to describe.
    upstream : Splits, optional
        The set that a model is trained on: its images are looked for in the datasets.
    max_images : int, optional
        Decode so many images per split, drawn by the seed; None = all.
    seed : int
        Seed of what is drawn.
    known : MeasuredSplits, optional
        What an earlier card measured of the upstream set.

    Returns
    -------
    tuple
        What was measured of each dataset, and of the upstream set, if there is one.

    Raises
    ------
    PipelineError
        Two datasets have the same name.
    """
    names = [identity(splits)[0] for splits in datasets]
    for name, times in Counter(names).items():
        if times > 1:
            raise PipelineError(f"--dataset: '{name}' is given {times} times; give each dataset once")
    if upstream is None:
        return [measure_splits(splits, max_images, seed) for splits in datasets], None
    reference = known or measure_splits(upstream, max_images, seed)
    measured = [
        reference if identity(splits) == identity(upstream) else measure_splits(splits, max_images, seed)
        for splits in datasets
    ]
    return measured, reference


def build_card(
    measured: Sequence[MeasuredSplits], upstream: MeasuredSplits | None, max_images: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Return the card of some datasets, as JSON can hold it.

    Counts and entropies of labels and votes need no decoding and are always of all images.
    """
    facts = None
    if upstream is not None:
        counts = {split: {"images": len(found.images), "decoded": found.tried} for split, found in upstream.items()}
        facts = {"name": next(iter(upstream.values())).images.name, "splits": counts}
    cards = [_dataset_card(splits, None if splits is upstream else upstream) for splits in measured]
    return {"max_images": max_images, "seed": seed, "upstream": facts, "datasets": cards}


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

    Returns
    -------
    dict
        `groups`, how many sets of images with the same pixels there are; `redundant`, how many images repeat an earlier
        one; `other_class`, how many groups have images with different labels; `examples`, the first groups with some of
        their images.
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
    """Return which images of `one` occur in `other`, bool [m], and how many there are, with examples.

    An image counts as `other_class` if none of its twins has a class of the same name.
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
        "examples": [_pair(one, a, other, b) for a, b in examples],
    }


def alike(one: Measured, other: Measured) -> dict[str, Any]:
    """Return how many images of `one` look like another one in `other` with other pixels, with examples.

    `images` is None where there are too many to compare.
    """
    twin = twins(one.look, one.digest, other.look, other.digest)
    rows = [] if twin is None else np.flatnonzero(twin >= 0).tolist()
    pairs = [] if twin is None else [(row, int(twin[row])) for row in rows]
    return {
        "dataset": other.images.name,
        "split": other.images.split,
        "images": None if twin is None else len(rows),
        "other_class": sum(one.class_of(a) != other.class_of(b) for a, b in pairs),
        "examples": [_pair(one, a, other, b) for a, b in pairs[:EXAMPLES]],
    }


def _pair(one: Measured, row: int, other: Measured, twin: int) -> dict[str, str]:
    return one.describe(row) | {"twin": other.location(twin), "twin_class": other.class_of(twin)}


def _dataset_card(measured: MeasuredSplits, upstream: MeasuredSplits | None) -> dict[str, Any]:
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
            "alike": [alike(one, other) for other in [one, *others, *(upstream or {}).values()]],
        }
    return card | {"splits": splits}


def _leaks(one: Measured, others: Sequence[Measured]) -> dict[str, Any]:
    """Return how many images occur in any of several splits, and what each of these holds of them."""
    found = [shared(one, other) for other in others]
    anywhere = np.logical_or.reduce([mask for mask, _ in found]) if found else np.zeros(0, bool)
    return {"images": int(anywhere.sum()), "in": [facts for _, facts in found]}
