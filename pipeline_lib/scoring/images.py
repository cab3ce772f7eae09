"""The images that a user wants scored: of folders, of archives, or files named one by one, in any mixture.

No dataset artefact is needed. An image is named by its path below what was given, just as it was given:
`photos/cat/1.jpg` in a folder `photos`, `photos.zip/cat/1.jpg` in an archive.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.archive_members import MemberOpener, check_format, list_members
from pipeline_lib.datasets.base import ImageOpener, decode, is_image_name, report_no_images
from pipeline_lib.datasets.files import FileOpener, digest_of_entries, list_images

if TYPE_CHECKING:
    from PIL.Image import Image

_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".tbz2", ".xz", ".txz", ".zst")


class _Found(NamedTuple):
    """One image: its path as shown, its label or None, where its opener finds it, and what tells that it changed."""

    path: str
    label: str | None
    location: str
    version: str


class ImageList:
    """Images in a fixed order: by what was given, then by path.

    `path` and `label` are Arrow string arrays [n]; a label is the name of the first folder below what was given, and
    null where there is none. `image(i)` decodes the i-th image as RGB. `digest` changes when an image comes, goes,
    or is written anew.

    The strings stay in Arrow: a million of them are 100 MB as Python objects, in each process that decodes.
    """

    def __init__(self, sources: Sequence[Path]) -> None:
        """List the images, and print how many files are none by name.

        Raises `PipelineError` for a source that is missing, broken or without images.
        """
        openers, found = zip(*map(_list_source, sources), strict=True)
        self._openers: tuple[ImageOpener, ...] = openers
        everything = [image for images in found for image in images]
        self.path = pa.array([image.path for image in everything], pa.string())
        self.label = pa.array([image.label for image in everything], pa.string())
        self._location = pa.array([image.location for image in everything], pa.string())
        self._source = pa.array([place for place, images in enumerate(found) for _ in images], pa.int32())
        self.digest = digest_of_entries((image.path, image.version) for image in everything)

    def __len__(self) -> int:
        return len(self.path)

    def image(self, position: int) -> Image:
        """Decode the image at a position as RGB; raises `UnreadableImageError`."""
        return self._openers[self._source[position].as_py()](self._location[position].as_py())


def open_file(path: str) -> Image:
    """Decode an image file as RGB; raises `UnreadableImageError`."""
    return decode(path, path)


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
    # Named by the user, so taken for an image whatever its name is.
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
    # A tar has no checksums: reading it through for them takes as long as reading its images.
    written = str(source.stat().st_mtime_ns)
    members = [
        member
        for member in list_members(source, checksum=False)
        if not (member.is_folder or member.name.startswith((".", "__MACOSX/")) or "/." in member.name)
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
