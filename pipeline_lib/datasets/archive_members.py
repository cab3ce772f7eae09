"""The members of a zip or tar archive, listed once and then read at random, without unpacking.

A zip member is found through the archive's central directory. A tar file has none, so the location of a tar member
is its offset, size and name: reading it is one system call.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.datasets.base import UnreadableImageError, decode, is_image_name
from pipeline_lib.errors import PipelineError

if TYPE_CHECKING:
    from PIL.Image import Image

_COMPRESSED_TAR = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_TAR_BLOCK_BYTES = 512
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file or folder of an archive; `checksum` is a zip member's CRC-32, a tar member's SHA-256."""

    name: str
    location: str
    size: int
    checksum: str
    is_folder: bool


def check_format(path: str) -> str:
    """Return the path if its name is that of a zip or tar; raises `ValueError` with advice."""
    name = path.lower()
    if name.endswith(_COMPRESSED_TAR):
        raise ValueError(
            f"'{path}' is a compressed tar, which can't be read at random; decompress it (to .tar) or repack it as zip"
        )
    if not name.endswith((".zip", ".tar")):
        raise ValueError(f"'{path}' is neither a .zip nor a .tar")
    return path


def list_members(archive: Path) -> list[Member]:
    """Return all files and folders of an archive, sorted by name (without a leading `./`).

    Raises `PipelineError` with one line for an archive that is missing, broken or cut short, and for a member whose
    name leads out of the archive or occurs twice, that is encrypted, or an image that is a link.
    """
    members = _list_zip if archive.suffix.lower() == ".zip" else _list_tar
    try:
        found = sorted(members(archive), key=lambda member: member.name)
    except FileNotFoundError:
        raise PipelineError(f"{archive}: no such archive; check 'path' and data_dir") from None
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise PipelineError(f"{archive}: broken or cut short ({error}); get the archive again") from None
    for one, other in itertools.pairwise(found):
        if one.name == other.name and not one.is_folder:
            raise PipelineError(f"{archive}: member '{one.name}' occurs twice; repack the archive")
    return found


def safe_name(name: str, source: str) -> str:
    """Return a member's name without `./`; raises `PipelineError` for one that leads out of its archive or folder."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or parts[0].endswith(":"):
        raise PipelineError(
            f"{source}: the name '{name}' is refused: it must be relative, with '/' between its parts and without '..'"
        )
    if "." in parts or "" in parts:
        return "/".join(part for part in parts if part not in ("", "."))
    return name


@dataclass(frozen=True)
class MemberOpener:
    """Decodes the image at a location from `list_members`. Safe in threads and in forked or spawned processes."""

    archive: str

    def __call__(self, location: str) -> Image:
        read = _read_zip if self.archive.lower().endswith(".zip") else _read_tar
        return decode(io.BytesIO(read(self.archive, location)), f"{self.archive}, member '{location}'")


def _list_zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            # orig_filename: zipfile rewrites names on Windows and cuts them at a zero byte.
            name = safe_name(info.orig_filename, str(archive))
            if info.flag_bits & 1:
                raise PipelineError(f"{archive}: member '{name}' is encrypted; repack the archive without a password")
            if stat.S_ISLNK(info.external_attr >> 16):
                _refuse_link(archive, name)
                continue
            yield Member(name, info.filename, info.file_size, f"{info.CRC:08x}", info.is_dir())


def _list_tar(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive, "r:") as opened, open(archive, "rb") as content:
        for info in opened:
            name = safe_name(info.name, str(archive))
            if info.isdir():
                yield Member(name, "", 0, "", True)
            elif info.isreg() and not info.issparse():
                checksum = _sha256(content, info.offset_data, info.size)
                location = f"{info.offset_data}:{info.size}:{info.name}"
                yield Member(name, location, info.size, checksum, False)
            else:
                _refuse_link(archive, name)
        _check_tar_end(content, opened.offset)


def _check_tar_end(content: io.BufferedReader, end: int) -> None:
    """Raise unless zero blocks, and nothing else, follow the last member.

    tarfile takes a damaged header for the end of the archive, and so it does the end of the file.
    """
    content.seek(end)
    if len(piece := content.read(_PIECE_BYTES)) < _TAR_BLOCK_BYTES:
        raise EOFError("no end mark after the last member")
    while piece:
        if piece.count(0) != len(piece):
            raise ValueError(f"unreadable data after byte {end}, where the last readable member ends")
        piece = content.read(_PIECE_BYTES)


def _refuse_link(archive: Path, name: str) -> None:
    if is_image_name(name):
        raise PipelineError(f"{archive}: image '{name}' is a link or a special file; repack it as a plain file")


def _sha256(content: io.BufferedReader, offset: int, size: int) -> str:
    content.seek(offset)
    digest = hashlib.sha256()
    while size > 0:
        piece = content.read(min(size, _PIECE_BYTES))
        if not piece:
            raise EOFError("the last member is incomplete")
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()


def _read_zip(archive: str, location: str) -> bytes:
    try:
        return _zip_of_process(archive, os.getpid()).read(location)
    except KeyError:
        raise UnreadableImageError(f"{archive}: has no member '{location}'") from None
    except (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UnreadableImageError(f"{archive}, member '{location}': can't be read ({error})") from None


def _read_tar(archive: str, location: str) -> bytes:
    offset, size, name = location.split(":", 2)
    try:
        content = os.pread(_file_of_process(archive, os.getpid()).fileno(), int(size), int(offset))
    except OSError as error:
        raise UnreadableImageError(f"{archive}, member '{name}': can't be read ({error.strerror})") from None
    if len(content) != int(size):
        raise UnreadableImageError(f"{archive}, member '{name}': the archive is cut short")
    return content


# Handles are kept per process: after a fork both processes would move the position of one and the same handle.
@functools.lru_cache(maxsize=8)
def _zip_of_process(archive: str, process: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(archive)


@functools.lru_cache(maxsize=8)
def _file_of_process(archive: str, process: int) -> io.FileIO:
    return open(archive, "rb", buffering=0)
