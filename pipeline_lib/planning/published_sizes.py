"""How many images the well-known datasets have, as published: for plans made before they are on the disk.

Counts are those of the datasets' own pages, of the TensorFlow Datasets catalogue, and of the data-centric image
classification benchmark (Schmarje et al. 2022). ImageNet-21k is the Winter 2021 release as timm counts it.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from pipeline_lib.datasets import class_halves, imagenet, imagenet21k, imagenet_real, sop, tfds, votes
from pipeline_lib.datasets.spec import DatasetOptions

_IMAGENET_1K = {"train": 1_281_167, "validation": 50_000}
_IMAGENET_21K = 13_151_276
_SOP = {"train": 29_136, "validation": 30_415, "test": 60_502}
# Class folders by the name of the folder, divided into halves of the classes.
_CLASS_HALVES = {
    "CUB_200_2011": {"validation": 2_942, "test": 5_924},
    "cars": {"validation": 4_052, "test": 8_131},
}
# Sets with votes, in five folds of about the same size; the name is that of their folder.
_VOTES = {
    "Benthic": 4_867,
    "CIFAR10H": 10_000,
    "MiceBone": 7_240,
    "Pig": 10_237,
    "Plankton": 12_280,
    "QualityMRI": 310,
    "Synthetic": 15_000,
    "Treeversity#1": 9_489,
    "Treeversity#6": 9_826,
    "Turkey": 8_040,
}
_FOLDS = {"validation": 1, "test": 1, "train": 3}
# Splits as TensorFlow Datasets has them.
_TFDS = {
    "caltech101": {"train": 3_057, "test": 6_084},
    "cifar10": {"train": 50_000, "test": 10_000},
    "cifar100": {"train": 50_000, "test": 10_000},
    "dtd": {"train": 1_880, "validation": 1_880, "test": 1_880},
    "oxford_flowers102": {"train": 1_020, "validation": 1_020, "test": 6_149},
    "oxford_iiit_pet": {"train": 3_680, "test": 3_669},
    "resisc45": {"train": 31_500},
    "sun397": {"train": 76_128, "validation": 10_875, "test": 21_750},
    "svhn_cropped": {"train": 73_257, "test": 26_032},
}
_SLICE = re.compile(r"(?P<split>\w+)(?:\[(?:(?P<start>\d+)%)?:(?:(?P<stop>\d+)%)?\])?")


def published_size(options: DatasetOptions, split: str) -> int | None:
    """Return the published number of images in a split of a dataset, or None where none is known.

    Shares that are drawn here (`held_out`, folds) are rounded for the whole set, so they may be some images off.
    """
    match options:
        case imagenet.Options():
            return _IMAGENET_1K.get(split)
        case imagenet_real.Options():
            return _IMAGENET_1K["validation"] if split == "validation" else None
        case imagenet21k.Options(classes=None | "imagenet21k", held_out=held_out):
            test = round(_IMAGENET_21K * held_out)
            return {"train": _IMAGENET_21K - test, "test": test}.get(split)
        case sop.Options():
            return _SOP.get(split)
        case class_halves.Options(test_halves=False, few_shot=None, path=path):
            return _CLASS_HALVES.get(PurePosixPath(path).name, {}).get(split)
        case votes.Options(path=path):
            images = _VOTES.get(PurePosixPath(path).name)
            return None if images is None or split not in _FOLDS else round(images * _FOLDS[split] / 5)
        case tfds.Options():
            return _tfds(options, split)
    return None


def _tfds(options: tfds.Options, split: str) -> int | None:
    found = _SLICE.fullmatch(options.tfds_splits().get(split, ""))
    images = _TFDS.get(options.name, {}).get(found["split"]) if found else None
    if found is None or images is None:
        return None
    start, stop = (round(images * int(percent) / 100) for percent in (found["start"] or 0, found["stop"] or 100))
    return stop - start
