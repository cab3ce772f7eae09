"""Kind `imagenet21k`: one tar per class, in a folder or in one outer tar (`winter21_whole.tar`), never unpacked.

The images are listed by class in the order of the wnids, then by name, whichever way the tars come. An image's
location is described in `tar_of_tars`.

Of each class a seeded part is held out as the split `test`, the rest is `train`. Of n images, `held_out` times n are
held out, rounded to the nearest number (halves up), but at least one where n is 2 or more, and never all: every class
of at least two images is in both splits. They are those whose names (`n01440764/n01440764_10026.JPEG`) have the
smallest seeded hashes, so what is held out of a class depends on nothing but its own names, and a larger share holds
out the same images and more.

The digest of the source covers the names and sizes in the headers of the tars. The images' bytes are left out: all of
them are 1.3 TB, hours of reading before the first feature, and an exchanged JPEG rarely keeps its size to the byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import xxhash
from pydantic import Field

from pipeline_lib.config.section import Seed
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.archive_members import FolderOpener, MemberOpener
from pipeline_lib.datasets.base import ImageOpener, Index, positions, resolve
from pipeline_lib.datasets.files import digest_of_entries
from pipeline_lib.datasets.outputs import ClassList, class_list
from pipeline_lib.datasets.spec import DatasetOptions, FolderName
from pipeline_lib.datasets.tar_of_tars import list_class_tars


class Options(DatasetOptions):
    """ImageNet-21k, or any other part of ImageNet that comes as one tar per class."""

    kind: Literal["imagenet21k"] = Field(description="ImageNet-21k: one tar per class, in a folder or in one tar.")
    path: FolderName = Field(
        description="A folder of nXXXXXXXX.tar or one tar of them; a relative path starts at data_dir."
    )
    held_out: float = Field(0.005, gt=0, lt=1, description="Share of each class that is the split `test`, at least 1.")
    seed: Seed = Field(0, description="Another seed holds out other images.")
    classes: ClassList | None = Field(
        None,
        description="Which classes, in which order: a list of timm's, as a classifier's outputs (imagenet21k = the "
        "21,843 of vit_*_augreg_in21k); null = those found, sorted.",
    )
    skip_unlisted: int = Field(
        0, ge=0, description="How many classes that `classes` lacks may be left out before the job stops."
    )


def open_images(options: Options, data_dir: Path) -> ImageOpener:
    """Return the opener of the tars' members."""
    path = resolve(data_dir, options.path)
    return FolderOpener(str(path)) if path.is_dir() else MemberOpener(str(path))


def build_index(options: Options, data_dir: Path) -> Index:
    """List the images by wnid, then by name.

    Raises
    ------
    PipelineError
        `list_class_tars` refuses the source, or more classes are outside `classes` than `skip_unlisted` allows.
    """
    import pyarrow as pa

    path = resolve(data_dir, options.path)
    in_folder = path.is_dir()
    locations: dict[str, pa.Array] = {}
    splits: dict[str, pa.Array] = {}
    digests: dict[str, str] = {}
    # Only these are kept, and in Arrow: all of ImageNet-21k are 13 million images.
    for wnid, images in list_class_tars(path, checksum=False):
        start = f"{wnid}.tar:" if in_folder else ""
        locations[wnid] = pa.array([start + image.location for image in images], pa.string())
        names = [f"{wnid}/{image.name}" for image in images]
        splits[wnid] = pa.array(np.where(held_out_of(names, options.held_out, options.seed), "test", "train"))
        digests[wnid] = digest_of_entries((image.name, str(image.size)) for image in images)
    classes = sorted(locations) if options.classes is None else class_list(options.classes)
    found = sorted(locations.keys() & set(classes))
    _check_unlisted(options, path, sorted(locations.keys() - set(classes)), len(locations))
    return Index(
        classes=classes,
        split=pa.chunked_array([splits[wnid] for wnid in found]),
        label=np.repeat(positions(found, classes), [len(locations[wnid]) for wnid in found]),
        location=pa.chunked_array([locations[wnid] for wnid in found]),
        fingerprint=digest_of_entries((wnid, digests[wnid]) for wnid in found),
    )


def watched_files(options: Options, data_dir: Path) -> list[Path]:
    """Return the outer tar, or the folder: it changes when a tar comes or goes.

    The tars in it are not watched: indexing refuses one that is still being written.
    """
    return [resolve(data_dir, options.path)]


def held_out_of(names: Sequence[str], share: float, seed: int) -> np.ndarray:
    """Return which images of one class are held out, bool [n]; the rule is at the top of this module."""
    # The share as the decimal that was written: 0.005 of 100 is a half, not a little less.
    wanted = int(Fraction(repr(share)) * len(names) + Fraction(1, 2))
    number = min(max(wanted, 1), len(names) - 1)
    keys = [xxhash.xxh3_128_intdigest(f"{seed}\0{name}".encode(errors="surrogateescape")) for name in names]
    chosen = np.zeros(len(names), bool)
    chosen[sorted(range(len(names)), key=lambda position: (keys[position], names[position]))[:number]] = True
    return chosen


def _check_unlisted(options: Options, path: Path, unlisted: list[str], found: int) -> None:
    if len(unlisted) == found:
        raise PipelineError(f"{path}: none of its {found} classes is in the list '{options.classes}'; set 'classes'")
    if len(unlisted) > options.skip_unlisted:
        raise PipelineError(
            f"{path}: {len(unlisted)} of its {found} classes are not in the list '{options.classes}' (the first is "
            f"{unlisted[0]}), but only {options.skip_unlisted} may; set skip_unlisted to {len(unlisted)} to leave "
            "them out, or choose other 'classes'"
        )
