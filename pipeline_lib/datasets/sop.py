"""Kind `sop`: Stanford Online Products, with its lists `Ebay_train.txt` and `Ebay_test.txt`.

The lists lie in `Info_Files` below `path` or in `path` itself. They are separated by blanks, with the columns
`image_id class_id super_class_id path`; the paths start at `images` below `path`, if there is such a folder, or at
`path` itself. Ebay_test is the split `test`. Ebay_train is divided by super class: the first half of its sorted class
numbers is `train` (one fewer than half where their number is odd), the rest `validation`. A class is a class number.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.base import ImageOpener, Index, positions, resolve, safe_name
from pipeline_lib.datasets.files import FileOpener, Tree, digest_of_files, images_below
from pipeline_lib.datasets.spec import Checksum, DatasetOptions, FolderName
from pipeline_lib.datasets.split_rules import class_halves

_LISTS = ("Ebay_train.txt", "Ebay_test.txt")
_HEADER = ["image_id", "class_id", "super_class_id", "path"]


class Options(DatasetOptions):
    """Stanford Online Products."""

    kind: Literal["sop"] = Field(description="Stanford Online Products, by its lists Ebay_train and Ebay_test.")
    path: FolderName = Field(
        description="The unpacked `Stanford_Online_Products` folder; a relative path starts at data_dir."
    )
    checksum: Checksum = "content"


@dataclass(frozen=True)
class _Row:
    """One line of a list; `where` names it in messages."""

    where: str
    number: int
    super_class: int
    path: str


def open_images(options: Options, data_dir: Path) -> ImageOpener:
    """Return the opener of the images."""
    return FileOpener(str(_images(options, data_dir)))


def build_index(options: Options, data_dir: Path) -> Index:
    """List the images of Ebay_train, then those of Ebay_test, in the order of the lists.

    Raises
    ------
    PipelineError
        An image is not there, a line can't be read, or a class is in two super classes or in both lists; list and line
        are named.
    """
    lists, images = _lists(options, data_dir), _images(options, data_dir)
    development, test = (_read(path) for path in lists)
    super_class_of = _super_classes(development)
    for row in test:
        if row.number in super_class_of:
            raise PipelineError(f"{row.where}: class {row.number} is in {lists[0].name} too; get the lists again")
    rows = [*development, *test]
    for row in rows:
        if not os.path.isfile(f"{images}/{row.path}"):  # noqa: PTH113 (faster than a Path)
            raise PipelineError(f"{row.where}: no image '{row.path}' in {images}; check 'path', or unpack it again")
    train = _train_classes(super_class_of)
    numbers = sorted({row.number for row in rows})
    locations = [row.path for row in rows]
    listed = digest_of_files(lists[0].parent, [path.name for path in lists], "content")
    return Index(
        classes=[str(number) for number in numbers],
        split=["train" if row.number in train else "validation" for row in development] + ["test"] * len(test),
        label=positions([row.number for row in rows], numbers),
        location=locations,
        fingerprint=f"{listed} {digest_of_files(images, locations, options.checksum)}",
    )


def watched_files(options: Options, data_dir: Path) -> list[Path | Tree]:
    """Return both lists and all images."""
    return [*_lists(options, data_dir), Tree(_images(options, data_dir))]


def _lists(options: Options, data_dir: Path) -> list[Path]:
    path = resolve(data_dir, options.path)
    folder = path / "Info_Files" if (path / "Info_Files").is_dir() else path
    return [folder / name for name in _LISTS]


def _images(options: Options, data_dir: Path) -> Path:
    return images_below(resolve(data_dir, options.path))


def _read(path: Path) -> list[_Row]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise PipelineError(f"{path}: no such list; check 'path' and data_dir, or get the dataset's archive") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path}: can't be read ({error})") from None
    if not lines or lines[0].split() != _HEADER:
        raise PipelineError(
            f"{path}: line 1 is '{lines[0] if lines else ''}', but must be '{' '.join(_HEADER)}'; get the list again"
        )
    rows = [_parse(line, f"{path}: line {number}") for number, line in enumerate(lines[1:], start=2) if line.strip()]
    if not rows:
        raise PipelineError(f"{path}: lists no images; get the list again")
    return rows


def _parse(line: str, where: str) -> _Row:
    fields = line.split(maxsplit=len(_HEADER) - 1)
    if len(fields) < len(_HEADER) or not all(field.isdecimal() for field in fields[:-1]):
        raise PipelineError(f"{where} is '{line}', but must be three whole numbers and a path; get the list again")
    return _Row(where, int(fields[1]), int(fields[2]), safe_name(fields[3].strip(), where))


def _super_classes(rows: list[_Row]) -> dict[int, int]:
    """Return the super class of each class number."""
    found: dict[int, int] = {}
    for row in rows:
        if found.setdefault(row.number, row.super_class) != row.super_class:
            raise PipelineError(
                f"{row.where}: class {row.number} is in super class {row.super_class}, but further up in "
                f"{found[row.number]}; get the list again"
            )
    return found


def _train_classes(super_class_of: dict[int, int]) -> set[int]:
    """Return the class numbers of the split `train`: of each super class the first half."""
    train: set[int] = set()
    for super_class in set(super_class_of.values()):
        numbers = np.array(sorted(number for number, above in super_class_of.items() if above == super_class))
        train.update(numbers[class_halves(len(numbers))].tolist())
    return train
