"""Kind `class_halves`: one folder per class; half of the classes are for development, the others for the test.

This is how metric learning divides CUB-200-2011 (`CUB_200_2011/images/001.Black_footed_Albatross/...`) and CARS196
(`images/<model>/...`). The class folders lie in `images` below `path`, if there is such a folder, or in `path` itself.
They are sorted by the number before the first dot, if every name has one, or else by name. The images of each class
are sorted by name and divided as `split_rules` says. The location of an image is its path below the class folders'.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets import split_rules
from pipeline_lib.datasets.base import ImageOpener, Index, report_no_images, resolve
from pipeline_lib.datasets.class_folders import index_class_folders
from pipeline_lib.datasets.files import FileOpener, Tree, digest_of_files, images_below, list_images
from pipeline_lib.datasets.spec import Checksum, DatasetOptions, FolderName

_NUMBERED = re.compile(r"(\d+)\.")


class Options(DatasetOptions):
    """Images in one folder per class, divided into halves of the classes."""

    kind: Literal["class_halves"] = Field(
        description="One folder per class, such as CUB or CARS; the first half of the classes gives train and "
        "validation, the second half test."
    )
    path: FolderName = Field(
        description="The folder of the class folders, or the one with `images` in it; a relative path starts at "
        "data_dir."
    )
    test_halves: bool = Field(
        False,
        description="Divide the images of each test class: even ones are split `trainontest`, odd ones `testontest`, "
        "and there is no split `test`.",
    )
    few_shot: int | None = Field(
        None,
        ge=1,
        description="How many images of each class to keep in the splits to train on (`train` and `trainontest`), at "
        "a constant stride; null = all.",
    )
    checksum: Checksum = "content"


def open_images(options: Options, data_dir: Path) -> ImageOpener:
    """Return the opener of the folder's files."""
    return FileOpener(str(_root(options, data_dir)))


def build_index(options: Options, data_dir: Path) -> Index:
    """List the images by path.

    Raises
    ------
    PipelineError
        There are fewer than two classes, or `index_class_folders` refuses the folder.
    """
    root = _root(options, data_dir)
    images, folders, others = list_images(root, "")
    images.sort()
    report_no_images(str(root), others)
    found = index_class_folders(
        images, set(folders), {"test": ""}, str(root), digest_of_files(root, images, options.checksum)
    )
    if len(found.classes) < 2:
        raise PipelineError(
            f"{root}: has only class '{found.classes[0]}', but halves need at least two class folders; check 'path'"
        )
    order = _in_order(found.classes)
    label = np.argsort(order)[found.label].astype(np.int64)
    split = _splits(label, len(order), options.test_halves)
    keep = np.ones(len(label), dtype=bool)
    if options.few_shot is not None:
        for name in ("train", "trainontest"):
            keep[split == name] = split_rules.few_shot(label[split == name], options.few_shot)
    kept = np.flatnonzero(keep).tolist()
    return replace(
        found,
        classes=[found.classes[position] for position in order],
        split=split[keep].tolist(),
        label=label[keep],
        location=[found.location[position] for position in kept],
    )


def watched_files(options: Options, data_dir: Path) -> list[Tree]:
    """Return all images."""
    return [Tree(_root(options, data_dir))]


def _root(options: Options, data_dir: Path) -> Path:
    return images_below(resolve(data_dir, options.path))


def _in_order(names: list[str]) -> list[int]:
    """Return the positions of the classes, given by name, in the order in which they are halved."""
    numbers = [int(match[1]) for name in names if (match := _NUMBERED.match(name))]
    keys = list(zip(numbers, names, strict=True)) if len(numbers) == len(names) else [(0, name) for name in names]
    return sorted(range(len(names)), key=keys.__getitem__)


def _splits(label: np.ndarray, n_classes: int, test_halves: bool) -> np.ndarray:
    """Return the split of each image, str [n]; label: int64 [n]."""
    train = np.where(split_rules.within_class_train_of(label), "train", "validation")
    if test_halves:
        test = np.where(split_rules.train_on_test(label), "trainontest", "testontest")
    else:
        test = np.full(len(label), "test")
    return np.where(split_rules.class_halves(n_classes)[label], train, test)
