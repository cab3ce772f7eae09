"""What `folder` and `archive` share: images in one folder per class, in one folder per split or none.

Both list relative names with `/` between the parts; here they become an index.
"""

from __future__ import annotations

import itertools
import sys
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

from pydantic import Field, ValidationInfo, field_validator

from pipeline_lib.config.section import Name
from pipeline_lib.config.splitter import Splitter
from pipeline_lib.core.errors import PipelineError, did_you_mean, one_of
from pipeline_lib.datasets.base import IMAGE_SUFFIXES, Index, numbered
from pipeline_lib.datasets.spec import DatasetOptions, FolderName
from pipeline_lib.datasets.splitter import assign

# What people call the folders of splits.
_SPLIT_OF_FOLDER = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class ClassFolderOptions(DatasetOptions):
    """Options of every kind whose images lie in one folder per class."""

    path: FolderName = Field(description="Where the images are; a relative path starts at data_dir.")
    splits: dict[Name, FolderName] | None = Field(
        None, min_length=1, description="The folder of each split, such as {train: train, test: val}; null = no splits."
    )
    split_by: Splitter | None = Field(
        None, description="Shares of the splits to divide the images or the classes into; null = don't."
    )
    split: Name = Field("test", description="Name of the only split where `splits` and `split_by` are null.")

    @field_validator("splits")
    @classmethod
    def _folders(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        folders = sorted(folder.strip("/").split("/") for folder in (value or {}).values())
        for parts in folders:
            if {"", ".", ".."} & set(parts):
                raise ValueError("each must name a folder below 'path', without dots")
        for one, other in itertools.pairwise(folders):
            if other[: len(one)] == one:
                raise ValueError(f"must not share images, but '{'/'.join(other)}' is (in) '{'/'.join(one)}'")
        return value

    @field_validator("split_by")
    @classmethod
    def _one_way_to_split(cls, value: Splitter | None, info: ValidationInfo) -> Splitter | None:
        if value is not None and info.data.get("splits") is not None:
            raise ValueError("give either split_by or splits (a folder for each split), not both")
        return value

    def folder_of_split(self) -> dict[str, str]:
        """Return the folder of each split, relative to the source; the empty name is the whole source."""
        return {name: folder.strip("/") for name, folder in self.splits.items()} if self.splits else {self.split: ""}


def index_class_folders(
    images: Sequence[str],
    folders: Collection[str],
    folder_of_split: Mapping[str, str],
    source: str,
    fingerprint: str,
    locations: Mapping[str, str] | None = None,
    split_by: Splitter | None = None,
) -> Index:
    """Turn image names such as `train/cat/a/1.png` into an index.

    The classes are the names of the class folders of all splits together, in order (`in_order`), as NFC: macOS writes
    accents in another way than other systems. A folder that alone lies around all class folders is looked into.

    Parameters
    ----------
    images : sequence of str
        Relative names of all images.
    folders : collection of str
        Relative names of the folders, so that an empty one is noticed; those with images may be missing.
    folder_of_split : mapping from str to str
        See `ClassFolderOptions.folder_of_split`; images elsewhere don't belong to the dataset.
    source : str
        What messages call the folder or archive.
    fingerprint : str
        That of the index.
    locations : mapping from str to str, optional
        The location of each image, if that isn't its name.
    split_by : Splitter, optional
        Divides the images of the only folder by their names; None = the folders are the splits.

    Raises
    ------
    PipelineError
        A split has no folder or no images, all classes are called like splits, a class folder is empty, an image lies
        outside every class folder, or a name is not UTF-8.
    """
    split_names, class_names, members = [], [], []
    start_of = {split: f"{folder}/" if folder else "" for split, folder in sorted(folder_of_split.items())}
    around = _around_classes([name[len(s) :] for s in start_of.values() for name in images if name.startswith(s)])
    if around:
        print(f"{source}: all images lie in '{around}', whose folders are taken as the classes", file=sys.stderr)
    for split, folder_start in start_of.items():
        start = folder_start + around
        inside = sorted(name for name in images if name.startswith(start))
        classes = [_class_of(name, len(start), source) for name in inside]
        if len(found := set(classes)) > 1 and all(map(is_called_like_a_split, found)):
            raise PipelineError(
                f"{source}: folders {one_of(found)} are called like splits, but would be the classes; write "
                f"splits: {{{_splits_of(found, start)}}}, or give the folders the names of their classes"
            )
        below = {_normal(name[len(start) :].split("/", 1)[0]) for name in folders if name.startswith(start)}
        empty = sorted(below.difference(classes, [""]))
        if empty:
            raise PipelineError(
                f"{source}: class folder '{start}{empty[0]}' holds no images (file names that end in "
                f"{' '.join(IMAGE_SUFFIXES)}); put some in, or delete the folder"
            )
        if not inside:
            raise PipelineError(_no_images(source, split, start.rstrip("/"), images, folders))
        split_names += [split] * len(inside)
        class_names += classes
        members += inside
    if split_by is not None:
        split_names = assign(class_names, members, split_by, source)
    class_list, label = numbered(class_names)
    return Index(
        classes=class_list,
        split=split_names,
        label=label,
        location=members if locations is None else [locations[name] for name in members],
        fingerprint=fingerprint,
    )


def is_called_like_a_split(name: str) -> bool:
    """Return whether a folder is called what people call a split's, such as `train`."""
    return name.lower() in _SPLIT_OF_FOLDER


def _splits_of(folders: Iterable[str], start: str) -> str:
    """Return what the option `splits` should say where folders are those of splits; one has to be the test split."""
    splits = {_SPLIT_OF_FOLDER[folder.lower()]: folder for folder in sorted(folders)}
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
    return ", ".join(f"{split}: {start}{splits[split]}" for split in ("train", "validation", "test") if split in splits)


def _around_classes(names: Sequence[str]) -> str:
    """Return the folders that alone lie around all class folders, such as `birds/`, or "".

    names: those of all images below their split's folder. Unpacked archives often look so: birds/birds/<class>/1.png. A
    folder counts if it holds all images, in several folders, and none itself.
    """
    around = ""
    while len({name[len(around) :].split("/", 1)[0] for name in names}) == 1:
        inner = around + names[0][len(around) :].split("/", 1)[0] + "/"
        below = [name[len(inner) :].split("/", 1) for name in names]
        if any(len(parts) < 2 for parts in below):
            break  # images lie in it: it is a class, the only one
        around = inner
    return around if len({name[len(around) :].split("/", 1)[0] for name in names}) > 1 else ""


def _class_of(name: str, start: int, source: str) -> str:
    end = name.find("/", start)
    if end < 0:
        raise PipelineError(f"{source}: image '{name}' lies outside every class folder; move it into one, or away")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise PipelineError(f"{source}: the name of image {name!r} is not UTF-8; rename it") from None
    return _normal(name[start:end])


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _no_images(source: str, split: str, folder: str, images: Iterable[str], folders: Iterable[str]) -> str:
    if not folder:
        return f"{source}: holds no images in class folders (such as cat/1.png); check the path"
    top = {name.split("/", 1)[0] for name in [*images, *folders] if "/" in name or name in folders}
    return (
        f"{source}: split '{split}' has no images in folder '{folder}'; folders there: {one_of(top)}"
        f"{did_you_mean(folder, top - {folder})}"
    )
