"""Kind `imagenet_real`: the ImageNet-1k validation images with the reassessed labels ReaL, or the votes behind them.

The images are those of the split `validation` of kind `imagenet`, which is the name of the only split here too. With
`real_labels` alone (`real.json`: a list of classes per image, in the order of the images' numbers), each listed class
of an image has one vote. With `raters` too (`raters.npz`, "ReaL-H"), a class has as many votes as people said "yes"
to it, and an image without any yes takes its votes from `real_labels`.

An image without votes from either stays in the dataset, with no votes (metrics of votes leave it out) and its official
label of ImageNet. The label of any other image is the class with most votes, the first of several.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from pipeline_lib.core.errors import PipelineError, one_line
from pipeline_lib.datasets import imagenet
from pipeline_lib.datasets.base import ImageOpener, Index, most_votes, read_json, resolve
from pipeline_lib.datasets.files import digest_of_files
from pipeline_lib.datasets.spec import FolderName

_YES = 2  # the answers are no, maybe, yes


class Options(imagenet.ImageNetOptions):
    """The ImageNet-1k validation images with reassessed labels."""

    kind: Literal["imagenet_real"] = Field(description="ImageNet-1k validation with the labels or votes of ReaL.")
    real_labels: FolderName = Field(description="real.json: the labels; a relative path starts at data_dir.")
    raters: FolderName | None = Field(
        None, description="raters.npz: the votes; a relative path starts at data_dir; null = the labels alone."
    )

    @property
    def has_votes(self) -> bool:
        """Whether images carry votes."""
        return True


def open_images(options: Options, data_dir: Path) -> ImageOpener:
    """Return the opener of the images."""
    return imagenet.open_images(options, data_dir)


def build_index(options: Options, data_dir: Path) -> Index:
    """List the validation images by name.

    Raises
    ------
    PipelineError
        Kind `imagenet` refuses the images; or labels or votes can't be read, are not for these images or name no class.
    """
    root = resolve(data_dir, options.path)
    images = imagenet.validation_images(root, options)
    if images is None:
        raise PipelineError(f"{root}: holds neither val/ nor {imagenet.VALIDATION_TAR}; check 'path' and data_dir")
    classes = list(imagenet.classes())
    files = [resolve(data_dir, path) for path in (options.real_labels, options.raters) if path is not None]
    real = _read_real_labels(files[0], len(classes))
    votes = _read_votes(files[1], len(real), len(classes)) if options.raters is not None else {}
    label_counts = []
    for name in images.name:
        number = imagenet.image_number(name, str(root))
        if number > len(real):
            raise PipelineError(f"{files[0]}: has the labels of {len(real)} images, none for '{name}'; get it again")
        label_counts.append(votes.get(number) or dict.fromkeys(real[number - 1], 1.0))
    official = imagenet.labels(images).tolist()
    return Index(
        classes=classes,
        split=["validation"] * len(official),
        label=np.array([_hard_label(*pair) for pair in zip(label_counts, official, strict=True)], np.int64),
        location=images.location,
        fingerprint=" ".join([images.fingerprint, *(digest_of_files(f.parent, [f.name], "content") for f in files)]),
        label_counts=label_counts,
    )


def watched_files(options: Options, data_dir: Path) -> list[Path]:
    """Return what kind `imagenet` watches and the files of labels and votes."""
    paths = [path for path in (options.real_labels, options.raters) if path is not None]
    return [*imagenet.watched_files(options, data_dir), *(resolve(data_dir, path) for path in paths)]


def _hard_label(counts: dict[int, float], official: int) -> int:
    return most_votes(counts) if counts else official


def _read_real_labels(path: Path, n_classes: int) -> list[list[int]]:
    real = read_json(path, "real_labels")
    if not isinstance(real, list) or not all(_are_classes(given, n_classes) for given in real):
        raise PipelineError(
            f"{path}: must be a list with a list of classes, 0 to {n_classes - 1}, for each image; get it again"
        )
    return real


def _are_classes(given: object, n_classes: int) -> bool:
    return isinstance(given, list) and all(type(label) is int and 0 <= label < n_classes for label in given)


def _read_votes(path: Path, n_images: int, n_classes: int) -> dict[int, dict[int, float]]:
    """Return the yes votes for each class that has any, per number of an image.

    The file has `tensor`, [raters, questions, 3] of zeros and ones, and `info`, [questions, 2] of (file name, class).
    """
    try:
        with np.load(path) as data:
            yes, info = data["tensor"][:, :, _YES].sum(axis=0), data["info"]
        names, labels = info[:, 0].tolist(), info[:, 1].astype(np.int64).tolist()
        if not len(names) == len(yes) or info.shape[1] != 2 or not np.isfinite(yes).all():
            raise ValueError(f"{len(names)} questions, but {len(yes)} answers")
    except FileNotFoundError:
        raise PipelineError(f"{path}: no such file; check 'raters' and data_dir") from None
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise PipelineError(f"{path}: can't be read as votes ({one_line(error)}); get it again") from None
    return _add_up(names, labels, yes.tolist(), path, n_images, n_classes)


def _add_up(
    names: Sequence[str], labels: Sequence[int], yes: Sequence[float], path: Path, n_images: int, n_classes: int
) -> dict[int, dict[int, float]]:
    votes: dict[int, dict[int, float]] = {}
    for name, label, count in zip(names, labels, yes, strict=True):
        number = imagenet.image_number(name, str(path))
        if number > n_images or not 0 <= label < n_classes:
            raise PipelineError(
                f"{path}: has a vote for class {label} of '{name}', but there are {n_classes} classes and {n_images} "
                "images in real_labels; get both again"
            )
        if count > 0:
            of_image = votes.setdefault(number, {})
            of_image[label] = of_image.get(label, 0.0) + count
    return votes
