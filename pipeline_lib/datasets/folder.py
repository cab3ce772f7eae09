"""Kind `folder`: one folder per class, in one folder per split or none. Folders below a class belong to it.

Names that start with a dot are left out, and so are files that are no images by name; how many of these is printed.
The location of an image is its path below `path`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline_lib.core.errors import PipelineError, did_you_mean
from pipeline_lib.datasets.base import ImageOpener, Index, decode, is_image_name, report_no_images, resolve
from pipeline_lib.datasets.class_folders import ClassFolderOptions, digest_of_entries, index_class_folders

if TYPE_CHECKING:
    from PIL.Image import Image

Checksum = Literal["content", "size"]
CHECKSUM_DESCRIPTION = "What tells a changed image: content = SHA-256 of every file, size = its size alone (faster)."


class Options(ClassFolderOptions):
    """Images in one folder per class."""

    kind: Literal["folder"] = Field(description="One folder per class, below one folder per split or none.")
    checksum: Checksum = Field("content", description=CHECKSUM_DESCRIPTION)


@dataclass(frozen=True)
class FileOpener:
    """Decodes the image file at a location relative to `root`."""

    root: str

    def __call__(self, location: str) -> Image:
        path = f"{self.root}/{location}"
        return decode(path, path)


def open_images(options: Options, data_dir: Path) -> ImageOpener:
    """Return the opener of the folder's files."""
    return FileOpener(str(resolve(data_dir, options.path)))


def build_index(options: Options, data_dir: Path) -> Index:
    """List the images by split folder, then by path."""
    root = resolve(data_dir, options.path)
    images: list[str] = []
    folders: list[str] = []
    others: list[str] = []
    for folder in options.folder_of_split().values():
        for names, found in zip((images, folders, others), list_images(root, folder), strict=True):
            names += found
    images.sort()
    report_no_images(str(root), others)
    return index_class_folders(
        images=images,
        folders=set(folders),
        folder_of_split=options.folder_of_split(),
        source=str(root),
        fingerprint=digest_of_files(root, images, options.checksum),
        split_by=options.split_by,
    )


def watched_files(options: Options, data_dir: Path) -> list[Path]:
    """Return the folder, its split folders and its class folders: a folder changes when an image comes or goes."""
    root = resolve(data_dir, options.path)
    found = [root]
    for folder in options.folder_of_split().values():
        if (root / folder).is_dir():
            classes = sorted(path for path in (root / folder).iterdir() if path.is_dir() and path.name[0] != ".")
            found += [root / folder, *classes] if folder else classes
    return found


def list_images(root: Path, folder: str, with_broken: bool = False) -> tuple[list[str], list[str], list[str]]:
    """Return the images, the folders and the other files below `root/folder`, relative to `root`, in no order.

    Links are followed, except to a folder that the link itself lies in: it has nothing new, and never ends.
    with_broken: list images that are broken links, or no plain files, too.
    Raises `PipelineError` for a missing folder and, unless they are listed, for an image that is a broken link.
    """
    images: list[str] = []
    folders: list[str] = []
    others: list[str] = []
    start = f"{folder}/" if folder else ""
    waiting = [(start, frozenset([_identity(root)]) if folder else frozenset())]
    while waiting:
        prefix, above = waiting.pop()
        try:
            here = above | {_identity(root / prefix)}
            with os.scandir(root / prefix) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    name = prefix + entry.name
                    if entry.is_dir():
                        if not (entry.is_symlink() and _identity(entry.path) in here):
                            folders.append(name)
                            waiting.append((f"{name}/", here))
                    elif is_image_name(entry.name):
                        if not with_broken and not entry.is_file():
                            raise PipelineError(f"{entry.path}: a broken link, or no plain file; repair or delete it")
                        images.append(name)
                    else:
                        others.append(name)
        except FileNotFoundError:
            raise PipelineError(_no_such_folder(root / prefix)) from None
        except OSError as error:
            raise PipelineError(f"{root / prefix}: can't be listed ({error.strerror})") from None
    return images, folders, others


def digest_of_files(root: Path, names: Iterable[str], checksum: Checksum) -> str:
    """Return the SHA-256 over the name, size and (for `content`) SHA-256 of each file, in the order given.

    Raises `PipelineError` naming a file that can't be read.
    """

    def entry(name: str) -> tuple[str, ...]:
        path = f"{root}/{name}"
        try:
            if checksum == "size":
                return name, str(os.stat(path).st_size)  # noqa: PTH116 (a Path costs three times as much)
            with open(path, "rb", buffering=0) as file:
                return name, str(os.fstat(file.fileno()).st_size), hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise PipelineError(f"{path}: can't be read ({error.strerror})") from None

    return digest_of_entries(entry(name) for name in names)


def _no_such_folder(folder: Path) -> str:
    siblings = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
    return f"{folder}: no such folder; check 'path', 'splits' and data_dir{did_you_mean(folder.name, siblings)}"


def _identity(path: str | Path) -> tuple[int, int]:
    status = Path(path).stat()
    return status.st_dev, status.st_ino
