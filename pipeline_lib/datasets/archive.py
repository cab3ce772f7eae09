"""Kind `archive`: one folder per class inside one zip or tar file, read at random without unpacking.

The location of an image is its member name in a zip, and `offset:size:name` in a tar.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from pipeline_lib.core.errors import PipelineError, did_you_mean, one_of
from pipeline_lib.datasets.archive_members import (
    Member,
    MemberOpener,
    check_format,
    digest_of_members,
    list_members,
)
from pipeline_lib.datasets.base import ImageOpener, Index, has_ignored_part, is_image_name, report_no_images, resolve
from pipeline_lib.datasets.class_folders import ClassFolderOptions, index_class_folders


class Options(ClassFolderOptions):
    """Images in one folder per class, in an archive."""

    kind: Literal["archive"] = Field(description="One folder per class inside a .zip or an uncompressed .tar.")
    root: str = Field("", description="Folder inside the archive below which the split or class folders lie.")

    @field_validator("path")
    @classmethod
    def _format(cls, value: str) -> str:
        return check_format(value)


def open_images(options: Options, data_dir: Path) -> ImageOpener:
    """Return the opener of the archive's members."""
    return MemberOpener(str(resolve(data_dir, options.path)))


def build_index(options: Options, data_dir: Path) -> Index:
    """List the images by split folder, then by name."""
    archive = resolve(data_dir, options.path)
    listed, root = list_members(archive), options.root.strip("/")
    members = list(_below(root or _around_splits(options, listed), listed, archive))
    images = {name: member for name, member in members if not member.is_folder and is_image_name(name)}
    report_no_images(str(archive), (name for name, member in members if not member.is_folder))
    return index_class_folders(
        images=list(images),
        folders={name for name, member in members if member.is_folder},
        folder_of_split=options.folder_of_split(),
        source=str(archive),
        fingerprint=digest_of_members(images.values()),
        locations={name: member.location for name, member in images.items()},
        split_by=options.split_by,
    )


def watched_files(options: Options, data_dir: Path) -> list[Path]:
    """Return the archive."""
    return [resolve(data_dir, options.path)]


def _around_splits(options: Options, members: list[Member]) -> str:
    """Return the folder that all split folders of an archive lie in, as archives of a folder have; "" = none."""
    names = [member.name for member in members if not has_ignored_part(member.name)]
    top = {name.split("/", 1)[0] for name in names}
    folders = options.folder_of_split().values()
    if options.splits is None or len(top) != 1:
        return ""
    (around,) = top
    below = {name[len(around) + 1 :] for name in names}
    return around if all(any(name.startswith(f"{folder}/") for name in below) for folder in folders) else ""


def _below(root: str, members: list[Member], archive: Path) -> Iterator[tuple[str, Member]]:
    """Yield the members below a folder of the archive with their names relative to it; ignored ones are left out."""
    start = f"{root}/" if root else ""
    below = [(member.name[len(start) :], member) for member in members if member.name.startswith(start)]
    if root and not below:
        top = {member.name.split("/", 1)[0] for member in members}
        raise PipelineError(
            f"{archive}: root '{root}' is no folder of the archive; at its top are {one_of(top)}"
            f"{did_you_mean(root, top)}"
        )
    for name, member in below:
        if name and not has_ignored_part(name):
            yield name, member
