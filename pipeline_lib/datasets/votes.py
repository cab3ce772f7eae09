"""Kind `votes`: the data-centric image classification collection, whose images carry the votes of many people.

Below `path` lie the folders `fold1` to `fold5` and `annotations.json`, a list of annotators, each with
`"annotations": [{"image_path": ..., "class_label": ...}, ...]`. An `image_path` starts at `path`
(`fold1/xyz.png`) or at its parent (`CIFAR10H/fold1/xyz.png`; that folder's name is not compared, since users rename
it). A vote whose label is null counts for nothing. `fold1` is the split `validation`, `fold2` `test`, the others
`train`. The classes are all labels, sorted; an image's hard label is the one with most votes, the first of several.

An image without votes has no label, so it can't be part of the dataset: `skip_unvoted` says how many may be left out.
The location of an image is its path below `path`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.base import ImageOpener, Index, in_order, most_votes, read_json, resolve, safe_name
from pipeline_lib.datasets.files import FileOpener, Tree, digest_of_files, list_images
from pipeline_lib.datasets.spec import Checksum, DatasetOptions, FolderName

_SPLIT_OF_FOLD = {"fold1": "validation", "fold2": "test", "fold3": "train", "fold4": "train", "fold5": "train"}
_FOLD_FIRST_OR_SECOND = re.compile(r"(?:[^/]+/)??((?:" + "|".join(_SPLIT_OF_FOLD) + r")/.+)", re.DOTALL)
_ANNOTATIONS = "annotations.json"


class Options(DatasetOptions):
    """Images with the votes of many people, in five folds."""

    kind: Literal["votes"] = Field(
        description="Folders fold1 to fold5 and annotations.json, as in the data-centric image classification sets."
    )
    path: FolderName = Field(description="The folder of one dataset; a relative path starts at data_dir.")
    skip_unvoted: int = Field(
        0, ge=0, description="How many images without any vote may be left out before the job stops."
    )
    checksum: Checksum = "content"

    @property
    def has_votes(self) -> bool:
        """Whether images carry votes."""
        return True


def open_images(options: Options, data_dir: Path) -> ImageOpener:
    """Return the opener of the folds' files."""
    return FileOpener(str(resolve(data_dir, options.path)))


def build_index(options: Options, data_dir: Path) -> Index:
    """List the images that have votes, by path.

    Raises
    ------
    PipelineError
        A fold is missing, annotations can't be read, a vote is for an image that is not there, or more images have no
        votes than `skip_unvoted` allows.
    """
    root = resolve(data_dir, options.path)
    images = sorted(image for fold in _SPLIT_OF_FOLD for image in list_images(root, fold)[0])
    votes = _read_votes(root / _ANNOTATIONS)
    for image in sorted(votes.keys() - set(images))[:1]:
        raise PipelineError(
            f"{root / _ANNOTATIONS}: has votes for '{image}', but there is no such image in {root}; unpack it again"
        )
    voted = [image for image in images if votes.get(image)]
    _check_unvoted(root, [image for image in images if not votes.get(image)], voted, options.skip_unvoted)
    classes = in_order(name for counts in votes.values() for name in counts)
    position = {name: number for number, name in enumerate(classes)}
    label_counts = [{position[name]: float(count) for name, count in votes[image].items()} for image in voted]
    annotations = digest_of_files(root, [_ANNOTATIONS], "content")
    return Index(
        classes=classes,
        split=[_SPLIT_OF_FOLD[image.split("/", 1)[0]] for image in voted],
        label=np.array(list(map(most_votes, label_counts)), np.int64),
        location=voted,
        fingerprint=f"{annotations} {digest_of_files(root, images, options.checksum)}",
        label_counts=label_counts,
    )


def watched_files(options: Options, data_dir: Path) -> list[Path | Tree]:
    """Return the annotations and all images of the folds."""
    root = resolve(data_dir, options.path)
    return [root / _ANNOTATIONS, *(Tree(root / fold) for fold in _SPLIT_OF_FOLD)]


def _read_votes(path: Path) -> dict[str, Counter[str]]:
    """Return the votes for each label per image, by its path below the dataset; none where all labels are null."""
    annotators = read_json(path, "path")
    votes: dict[str, Counter[str]] = {}
    for annotation, where in _annotations(annotators, path):
        image, name = annotation.get("image_path"), annotation.get("class_label")
        inside = _FOLD_FIRST_OR_SECOND.fullmatch(safe_name(image, where)) if isinstance(image, str) else None
        if inside is None:
            raise PipelineError(
                f"{where}: its image_path {image!r} must name a file in one of {', '.join(_SPLIT_OF_FOLD)}; "
                "correct it or get the file again"
            )
        if name == "" or isinstance(name, bool) or not isinstance(name, str | int | None):
            raise PipelineError(f"{where}: its class_label {name!r} must be a name, a whole number or null; correct it")
        votes.setdefault(inside[1], Counter()).update([] if name is None else [str(name)])
    return votes


def _annotations(annotators: Any, path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each annotation with the words that name it in messages."""
    if not isinstance(annotators, list):
        raise PipelineError(f"{path}: must be a list of annotators, each with 'annotations'; get it again")
    for person, annotator in enumerate(annotators, start=1):
        given = annotator.get("annotations") if isinstance(annotator, dict) else None
        if not isinstance(given, list):
            raise PipelineError(f"{path}: annotator {person} has no list 'annotations'; get the file again")
        for number, annotation in enumerate(given, start=1):
            where = f"{path}: annotation {number} of annotator {person}"
            if not isinstance(annotation, dict):
                raise PipelineError(f"{where} is no object with 'image_path' and 'class_label'; get the file again")
            yield annotation, where


def _check_unvoted(root: Path, unvoted: list[str], voted: list[str], allowed: int) -> None:
    if not voted:
        raise PipelineError(f"{root}: no image in {', '.join(_SPLIT_OF_FOLD)} has a vote; check 'path'")
    if len(unvoted) > allowed:
        raise PipelineError(
            f"{root}: {len(unvoted)} images have no vote (the first is '{unvoted[0]}'), but only {allowed} may; "
            f"set skip_unvoted to {len(unvoted)} to leave them out"
        )
