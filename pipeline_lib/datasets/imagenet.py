"""Kind `imagenet`: ImageNet-1k, as its official archives or unpacked.

Below `path` the split `train` is the folder `train/nXXXXXXXX/`, or else `ILSVRC2012_img_train.tar`; `validation` is
the folder `val/`, or else `ILSVRC2012_img_val.tar`. `val` has class folders, as torchvision makes them, or is flat;
the flat folder and the archive need `ILSVRC2012_devkit_t12.tar.gz`, which says which class each image is of. Archives
are read at random, never unpacked. A split that is neither a folder nor an archive is left out.

The classes are always the 1,000 wnids, sorted: a label is a position of the outputs of every classifier for
ImageNet-1k, for a subset too. Training images are in the order of their wnids, then names; validation images in that
of their names. So the samples and labels are the same whichever way the images come.

A location is a path below `path`, or `archive:offset:size:name`.
"""

from __future__ import annotations

import functools
import io
import itertools
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from pipeline_lib.core.errors import PipelineError, one_line
from pipeline_lib.datasets.archive_members import (
    FolderOpener,
    Member,
    digest_of_members,
    list_members,
    naming_faults,
)
from pipeline_lib.datasets.base import ImageOpener, Index, is_image_name, positions, resolve
from pipeline_lib.datasets.files import digest_of_entries, digest_of_files, list_images, subfolders
from pipeline_lib.datasets.outputs import class_list
from pipeline_lib.datasets.spec import Checksum, DatasetOptions, FolderName
from pipeline_lib.datasets.tar_of_tars import list_class_tars

if TYPE_CHECKING:
    pass

TRAIN_TAR, VALIDATION_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_FOLDERS = {"train": "train", "validation": "val"}
_VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


class ImageNetOptions(DatasetOptions):
    """Options of every kind whose images are ImageNet-1k's."""

    path: FolderName = Field(
        description="The folder with the official archives or with train/ and val/; a relative path starts at data_dir."
    )
    checksum: Checksum = "content"
    missing_classes: int = Field(
        0, ge=0, lt=1000, description="How many of the 1,000 classes may lack images in a split before the job stops."
    )


class Options(ImageNetOptions):
    """ImageNet-1k (ILSVRC 2012)."""

    kind: Literal["imagenet"] = Field(description="ImageNet-1k: its official archives, or folders train/ and val/.")


@dataclass(frozen=True)
class Images:
    """The images of one split: the class, the name without folders, and the location of each."""

    wnid: list[str]
    name: list[str]
    location: list[str]
    fingerprint: str


def open_images(options: ImageNetOptions, data_dir: Path) -> ImageOpener:
    """Return the opener of the images."""
    return FolderOpener(str(resolve(data_dir, options.path)))


def build_index(options: Options, data_dir: Path) -> Index:
    """List the training images, then the validation images.

    Raises
    ------
    PipelineError
        A folder or archive holds no images, is broken or incomplete, a class is not of ImageNet-1k, or there is neither
        split.
    """
    root = resolve(data_dir, options.path)
    listed = {"train": train_images(root, options), "validation": validation_images(root, options)}
    splits = {split: images for split, images in listed.items() if images is not None}
    if not splits:
        raise PipelineError(
            f"{root}: holds none of train/, {TRAIN_TAR}, val/ and {VALIDATION_TAR}; check 'path' and data_dir"
        )
    return Index(
        classes=list(classes()),
        split=[split for split, images in splits.items() for _ in images.wnid],
        label=np.concatenate([labels(images) for images in splits.values()]),
        location=[location for images in splits.values() for location in images.location],
        fingerprint=" ".join(f"{split} {images.fingerprint}" for split, images in splits.items()),
    )


def watched_files(options: ImageNetOptions, data_dir: Path) -> list[Path]:
    """Return the archives and folders that are there, those of the classes too, and the folder that holds them."""
    root = resolve(data_dir, options.path)
    found = [root]
    for name in (*_FOLDERS.values(), TRAIN_TAR, VALIDATION_TAR, DEVKIT):
        if (root / name).exists():
            found.append(root / name)
        found += subfolders(root / name)
    return found


@functools.cache
def classes() -> tuple[str, ...]:
    """Return the 1,000 wnids of ImageNet-1k, in the order of its classifiers' outputs."""
    return tuple(class_list("imagenet1k"))


def labels(images: Images) -> np.ndarray:
    """Return each image's position in `classes()`, int64 [n]."""
    return positions(images.wnid, classes())


def image_number(name: str, where: str) -> int:
    """Return the number in a validation image's name, from 1; raises `PipelineError` for any other name."""
    if not (match := _VALIDATION_NAME.fullmatch(name)) or int(match[1]) < 1:
        raise PipelineError(f"{where}: '{name}' is no name like ILSVRC2012_val_00000001.JPEG; get the images again")
    return int(match[1])


def train_images(root: Path, options: ImageNetOptions) -> Images | None:
    """List the training images by wnid, then by name; None where there are none."""
    content = options.checksum == "content"
    if (root / "train").is_dir():
        paths = sorted(list_images(root, "train")[0])
        found = _in_class_folders(root, paths, digest_of_files(root, paths, options.checksum))
    elif (root / TRAIN_TAR).exists():
        rows: list[tuple[str, Member]] = []
        for wnid, members in list_class_tars(root / TRAIN_TAR, content):
            rows += [(wnid, member) for member in members]
        rows.sort(key=lambda row: (row[0], row[1].name))
        found = Images(
            [wnid for wnid, _ in rows],
            [member.name for _, member in rows],
            [f"{TRAIN_TAR}:{member.location}" for _, member in rows],
            digest_of_entries((wnid, member.name, str(member.size), member.checksum) for wnid, member in rows),
        )
    else:
        return None
    return _checked(found, root, "train", options)


def validation_images(root: Path, options: ImageNetOptions) -> Images | None:
    """List the validation images by name; None where there are none."""
    if (root / "val").is_dir():
        paths = sorted(list_images(root, "val")[0], key=lambda path: (path.rsplit("/", 1)[1], path))
        digest = digest_of_files(root, paths, options.checksum)
        flat = [path for path in paths if path.count("/") == 1]
        if not flat:
            found = _in_class_folders(root, paths, digest)
        elif len(flat) == len(paths):
            found = _with_ground_truth(root, "val", [path.split("/")[1] for path in paths], paths, digest)
        else:
            raise PipelineError(f"{root / flat[0]}: lies beside class folders; move it into one, or all images out")
    elif (root / VALIDATION_TAR).exists():
        members = list_members(root / VALIDATION_TAR, options.checksum == "content")
        images = [member for member in members if is_image_name(member.name)]
        found = _with_ground_truth(
            root,
            VALIDATION_TAR,
            [image.name for image in images],
            [f"{VALIDATION_TAR}:{image.location}" for image in images],
            digest_of_members(images),
        )
    else:
        return None
    for one, other in itertools.pairwise(zip(found.name, found.location, strict=True)):
        if one[0] == other[0]:
            raise PipelineError(f"{root}: image '{one[0]}' occurs twice, as {one[1]} and {other[1]}; delete one")
    return _checked(found, root, "validation", options)


def _in_class_folders(root: Path, paths: list[str], digest: str) -> Images:
    for path in paths:
        if path.count("/") < 2:
            raise PipelineError(f"{root / path}: lies outside every class folder; move it into one, or away")
    return Images([path.split("/")[1] for path in paths], [path.rsplit("/", 1)[1] for path in paths], paths, digest)


def _with_ground_truth(root: Path, source: str, names: list[str], locations: list[str], digest: str) -> Images:
    """Look the classes up by the numbers in the images' names."""
    truth = _ground_truth(root / DEVKIT)
    if len(names) != len(truth):
        raise PipelineError(
            f"{root / source}: holds {len(names)} images, but {DEVKIT} has the classes of {len(truth)}; get it again"
        )
    numbers = [image_number(name, str(root / source)) for name in names]
    if beyond := [name for number, name in zip(numbers, names, strict=True) if number > len(truth)]:
        raise PipelineError(f"{root / source}: {DEVKIT} has {len(truth)} classes, none for '{beyond[0]}'; get it again")
    devkit = digest_of_files(root, [DEVKIT], "content")
    return Images([truth[number - 1] for number in numbers], names, locations, f"{digest} {devkit}")


def _ground_truth(devkit: Path) -> list[str]:
    """Return the wnid of each validation image, from the development kit."""
    from scipy.io import loadmat

    if not devkit.exists():
        raise PipelineError(f"{devkit}: missing, but it says which class a validation image is of; put it there")
    with naming_faults(str(devkit)), tarfile.open(devkit, "r:gz") as opened:
        contents = {}
        for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt"):
            member = f"ILSVRC2012_devkit_t12/data/{name}"
            file = opened.extractfile(member) if member in opened.getnames() else None
            if file is None:
                raise PipelineError(f"{devkit}: has no file data/{name}; get the archive again")
            contents[name] = file.read()
    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(contents["meta.mat"]), squeeze_me=True)["synsets"])
        # Those with children are groups of classes.
        leaves = synsets[synsets["num_children"].astype(np.int64) == 0]
        wnid_of = dict(zip(leaves["ILSVRC2012_ID"].astype(int).tolist(), leaves["WNID"].tolist(), strict=True))
        lines = contents["ILSVRC2012_validation_ground_truth.txt"].decode().split()
        return [wnid_of[int(line)] for line in lines]
    except Exception as error:  # loadmat raises what it likes
        reason = one_line(f"{type(error).__name__}: {error}")
        raise PipelineError(f"{devkit}: can't be read ({reason}); get it again") from None


def _checked(images: Images, root: Path, split: str, options: ImageNetOptions) -> Images:
    known, found = set(classes()), set(images.wnid)
    for wnid in sorted(found - known)[:1]:
        raise PipelineError(f"{root}: class '{wnid}' of split '{split}' is none of ImageNet-1k's 1,000; take it away")
    missing = sorted(known - found)
    if len(missing) > options.missing_classes:
        raise PipelineError(
            f"{root}: {len(missing)} of 1,000 classes have no images in split '{split}' (the first is {missing[0]}), "
            f"but only {options.missing_classes} may; get them again, or set missing_classes to {len(missing)}"
        )
    return images
