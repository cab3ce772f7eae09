"""Files below a folder: listed, opened, and fingerprinted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.core.errors import PipelineError, did_you_mean
from pipeline_lib.datasets.base import decode, is_ignored, is_image_name
from pipeline_lib.datasets.spec import Checksum

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class FileOpener:
    """Decodes the image file at a location relative to `root`."""

    root: str

    def __call__(self, location: str) -> Image:
        path = f"{self.root}/{location}"
        return decode(path, path)


@dataclass(frozen=True)
class Tree:
    """All images below a folder, to be watched: their names, sizes and times. 200,000 take a second or two."""

    path: Path

    def __str__(self) -> str:
        return f"{self.path}/**"

    def exists(self) -> bool:
        """Return whether there is such a folder."""
        return self.path.is_dir()

    def seen(self) -> list[int | str] | None:
        """Return how many images there are, the newest time in ns since 1970, and a digest; None without a folder."""
        if not self.path.is_dir():
            return None
        images = sorted(list_images(self.path, "", with_broken=True)[0])
        entries: list[tuple[str, ...]] = []
        newest = 0
        for name in images:
            try:
                status = os.stat(f"{self.path}/{name}")  # noqa: PTH116 (a Path costs three times as much)
            except OSError:
                entries.append((name,))
            else:
                entries.append((name, str(status.st_size), str(status.st_mtime_ns)))
                newest = max(newest, status.st_mtime_ns)
        return [len(images), newest, digest_of_entries(entries)]


def list_images(root: Path, folder: str, with_broken: bool = False) -> tuple[list[str], list[str], list[str]]:
    """Return the images, the folders and the other files below a folder, relative to `root`, in no order.

    Links are followed, except to a folder that the link itself lies in: it has nothing new, and never ends.

    Parameters
    ----------
    root : Path
        What the returned names start at.
    folder : str
        The folder to list, below `root`; "" = `root` itself.
    with_broken : bool
        List images that are broken links, or no plain files, too.

    Raises
    ------
    PipelineError
        A folder is missing or can't be listed or, unless they are listed too, an image is a broken link.
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
                    if is_ignored(entry.name):
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


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder that are not ignored, sorted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_ignored(path.name))


def images_below(path: Path) -> Path:
    """Return the folder `images` below a path, if there is one, else the path itself."""
    return path / "images" if (path / "images").is_dir() else path


def digest_of_entries(entries: Iterable[tuple[str, ...]]) -> str:
    """Return the SHA-256 of entries such as (name, size, checksum), in the order given."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update("\0".join(entry).encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()


def digest_of_files(root: Path, names: Iterable[str], checksum: Checksum) -> str:
    """Return the SHA-256 over the name, size and (for `content`) SHA-256 of each file, in the order given.

    Raises
    ------
    PipelineError
        A file can't be read.
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
