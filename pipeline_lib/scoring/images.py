"""The images that a user wants scored: folders, archives and image files, in any mixture; no dataset is needed.

The path of an image begins with what the user gave: `photos/cat/1.jpg` in a folder `photos`, `photos.zip/cat/1.jpg` in
an archive.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.archive_members import MemberOpener, check_format, list_members
from pipeline_lib.datasets.base import ImageOpener, decode, has_ignored_part, is_image_name, opaque, report_no_images
from pipeline_lib.datasets.files import FileOpener, digest_of_entries, list_images

if TYPE_CHECKING:
    from PIL.Image import Image

_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".tbz2", ".xz", ".txz", ".zst")


class _Found(NamedTuple):
    """One image: its path as shown, its label, where its opener finds it, and what differs once it is written anew."""

    path: str
    label: str | None
    location: str
    version: str


class ImageList:
    """Images in a fixed order: that of their sources, within one by path.

    Files that are no images, by name, are left out; how many these are is printed.

    Attributes
    ----------
    path : pyarrow.Array
        Strings [n]. A million of them would be 100 MB as Python objects, in each process that decodes.
    label : pyarrow.Array
        Strings [n]: the first folder below the source; null where there is none.
    digest : str
        Changes when an image is added, removed or written anew.

    Parameters
    ----------
    sources
        Folders, archives and image files.

    Raises
    ------
    PipelineError
        For a source that is missing, broken or without images.
    """

    def __init__(self, sources: Sequence[Path]) -> None:
        openers, found = zip(*map(_list_source, sources), strict=True)
        self._openers: tuple[ImageOpener, ...] = openers
        everything = [image for images in found for image in images]
        self.path = pa.array([image.path for image in everything], pa.string())
        self.label = pa.array([image.label for image in everything], pa.string())
        self._location = pa.array([image.location for image in everything], pa.string())
        self._source = pa.array([source for source, images in enumerate(found) for _ in images], pa.int32())
        self.digest = digest_of_entries((image.path, image.version) for image in everything)

    def __len__(self) -> int:
        return len(self.path)

    def image(self, position: int) -> Image:
        """Decode the image at a position as RGB; raises `UnreadableImageError`."""
        return opaque(self._openers[self._source[position].as_py()](self._location[position].as_py()))

    def file(self, position: int) -> Path | None:
        """Return the file of the image at a position; None of a member of an archive."""
        opener, location = self._openers[self._source[position].as_py()], self._location[position].as_py()
        if isinstance(opener, FileOpener):
            return Path(opener.root, location)
        return Path(location) if opener is open_file else None


def open_file(path: str) -> Image:
    """Decode an image file as RGB; raises `UnreadableImageError`."""
    return opaque(decode(path, path))


def _list_source(source: Path) -> tuple[ImageOpener, list[_Found]]:
    if source.is_dir():
        return FileOpener(str(source)), _checked(source, _in_folder(source))
    if not source.is_file():
        raise PipelineError(f"{source}: no such folder, archive or image; check the path")
    if source.name.lower().endswith(_ARCHIVE_SUFFIXES):
        try:
            check_format(str(source))
        except ValueError as error:
            raise PipelineError(str(error)) from None
        return MemberOpener(str(source)), _checked(source, _in_archive(source))
    # The user named this file, so it is taken for an image whatever its name.
    return open_file, [_Found(_text(str(source)), None, str(source), _version(source))]


def _checked(source: Path, images: Iterator[_Found]) -> list[_Found]:
    found = sorted(images, key=lambda image: image.path)
    if not found:
        raise PipelineError(f"{source}: holds no images; their names must end as an image's does, such as .jpg or .png")
    return found


def _in_folder(source: Path) -> Iterator[_Found]:
    images, _, others = list_images(source, "", with_broken=True)
    report_no_images(str(source), others)
    for name in images:
        yield _Found(_text(f"{source}/{name}"), _label(name), name, _version(source / name))


def _in_archive(source: Path) -> Iterator[_Found]:
    # A tar has no checksums, and to compute them would take as long as to read its images.
    written = str(source.stat().st_mtime_ns)
    members = [
        member
        for member in list_members(source, checksum=False)
        if not (member.is_folder or has_ignored_part(member.name))
    ]
    report_no_images(str(source), (member.name for member in members))
    for member in members:
        if is_image_name(member.name):
            version = f"{member.size} {member.checksum or written}"
            yield _Found(_text(f"{source}/{member.name}"), _label(member.name), member.location, version)


def _label(name: str) -> str | None:
    first, separator, _ = name.partition("/")
    return _text(first) if separator else None


def _version(path: Path) -> str:
    try:
        status = os.stat(path)  # noqa: PTH116 (a Path costs three times as much)
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def _text(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise PipelineError(f"the name of image {name!r} is not UTF-8; rename it") from None
    return name
