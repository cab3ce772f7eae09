"""One tar of images per class, named by its wnid (`n01440764.tar`), in a folder or in one outer tar.

Neither is unpacked: the location of an image is where its bytes are. In an outer tar that is `offset:size:name`, with
the offset counted in the outer file, so that `MemberOpener` reads it. In a folder the tar's name comes first,
`n01440764.tar:offset:size:name`, for `TarFolderOpener`.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.recognise import require_no_pipe
from pipeline_lib.datasets.archive_members import (
    Member,
    check_tar_end,
    naming_faults,
    refuse_gzip,
    sorted_members,
    tar_members,
)
from pipeline_lib.datasets.base import is_image_name, safe_name

if TYPE_CHECKING:
    pass

_CLASS_TAR = re.compile(r"(n\d{8})\.tar")


def list_class_tars(source: Path, checksum: bool) -> Iterator[tuple[str, list[Member]]]:
    """Yield each class's wnid and its images, sorted by name, in the order in which their tars lie in `source`.

    Parameters
    ----------
    source : Path
        A folder of tars or an outer tar. Files that don't end in `.tar`, and hidden ones, are left out.
    checksum : bool
        Read the images for their SHA-256, not only the headers of the tars.

    Raises
    ------
    PipelineError
        A tar is broken or cut short, holds no images, or is not named by a wnid; a wnid occurs twice; a member leads
        out of its tar by its name, or occurs twice; or there are no tars.
    """
    seen: set[str] = set()
    tars = _in_folder(source, checksum) if source.is_dir() else _in_tar(source, checksum)
    for wnid, where, members in tars:
        if wnid in seen:
            raise PipelineError(f"{where}: class {wnid} has another tar too; keep one of them")
        seen.add(wnid)
        images = [member for member in members if not member.is_folder and is_image_name(member.name)]
        if not images:
            raise PipelineError(f"{where}: holds no images; get the archive again, or take it away")
        yield wnid, images
    if not seen:
        raise PipelineError(f"{source}: holds no tar of a class (such as n01440764.tar); check 'path'")


def _in_folder(folder: Path, checksum: bool) -> Iterator[tuple[str, str, list[Member]]]:
    for name in sorted(path.name for path in folder.iterdir()):
        if wnid := _wnid_of(name, str(folder)):
            where = str(folder / name)
            require_no_pipe(folder / name)
            with naming_faults(where), open(where, "rb") as content:
                yield wnid, where, sorted_members(tar_members(content, where, checksum=checksum), where)


def _in_tar(archive: Path, checksum: bool) -> Iterator[tuple[str, str, list[Member]]]:
    refuse_gzip(archive, "unpack it once into a folder of tars")
    with naming_faults(str(archive)), open(archive, "rb") as content, tarfile.open(fileobj=content, mode="r:") as outer:
        for info in outer:
            name = safe_name(info.name, str(archive))
            if info.isdir() or not (wnid := _wnid_of(name, str(archive))):
                continue
            where = f"{archive}, member '{name}'"
            if not info.isreg() or info.issparse() or (inner := outer.extractfile(info)) is None:
                raise PipelineError(f"{where}: is a link or a special file; repack it as a plain file")
            with naming_faults(where):
                members = tar_members(inner, where, info.offset_data, checksum)
                yield wnid, where, sorted_members(members, where)
        check_tar_end(content, outer.offset)


def _wnid_of(name: str, source: str) -> str | None:
    """Return the wnid that a tar is named by, None for another file."""
    base = name.rsplit("/", 1)[-1]
    if base.startswith(".") or not base.lower().endswith(".tar"):
        return None
    if not (match := _CLASS_TAR.fullmatch(base)):
        raise PipelineError(
            f"{source}: tar '{name}' is not named by a class (such as n01440764.tar); rename it, or take it away"
        )
    return match[1]
