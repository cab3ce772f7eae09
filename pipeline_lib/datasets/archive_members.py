"""The members of a zip or tar archive, listed once and then read at random, without unpacking.

A zip member is found through the archive's central directory. A tar file has none, so the location of a tar member
is its offset, size and name: reading it is one system call.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.recognise import GZIP, misnamed, require_no_pipe
from pipeline_lib.datasets.base import UnreadableImageError, decode, is_image_name, safe_name
from pipeline_lib.datasets.files import FileOpener, digest_of_entries

if TYPE_CHECKING:
    from PIL.Image import Image

_COMPRESSED_TAR = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_TAR_AND_MEMBER = re.compile(r"(.*?\.tar):(\d+:\d+:.*)", re.DOTALL)
_TAR_BLOCK_BYTES = 512
_UTF8_FLAG = 0x800
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """A file or folder of an archive; `checksum` is a zip member's CRC-32, a tar member's SHA-256 or empty."""

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


def list_members(archive: Path, checksum: bool = True) -> list[Member]:
    """Return all files and folders of an archive, sorted by name (without a leading `./`).

    Parameters
    ----------
    archive : Path
        A .zip or .tar.
    checksum : bool
        Read a tar through for its members' checksums; a zip has them in its directory.

    Raises
    ------
    PipelineError
        The archive is missing, broken or cut short; or a member leads out of it by its name, occurs twice, is encrypted
        or an image that is a link.
    """
    require_no_pipe(archive)
    members = _list_zip(archive) if archive.suffix.lower() == ".zip" else _list_tar(archive, checksum)
    with naming_faults(str(archive)):
        return sorted_members(members, str(archive))


@contextlib.contextmanager
def naming_faults(source: str) -> Iterator[None]:
    """Turn the errors of reading an archive into a `PipelineError` of one line that names it."""
    try:
        yield
    except FileNotFoundError:
        raise PipelineError(f"{source}: no such archive; check 'path' and data_dir") from None
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, tarfile.TarError) as error:
        reason = misnamed(source) or f"broken or cut short ({error}); get the archive again"
        raise PipelineError(f"{source}: {reason}") from None


def sorted_members(members: Iterable[Member], source: str) -> list[Member]:
    """Return members sorted by name; raises `PipelineError` for a file that occurs twice."""
    found = sorted(members, key=lambda member: member.name)
    for one, other in itertools.pairwise(found):
        if one.name == other.name and not one.is_folder:
            raise PipelineError(f"{source}: member '{one.name}' occurs twice; repack the archive")
    return found


@dataclass(frozen=True)
class MemberOpener:
    """Decodes the image at a location from `list_members`. Safe in threads and in forked or spawned processes."""

    archive: str

    def __call__(self, location: str) -> Image:
        return decode(io.BytesIO(read_member(self.archive, location)), f"{self.archive}, member '{location}'")


@dataclass(frozen=True)
class FolderOpener:
    """Decodes the image at a location below `root`: a file's path, or `tar:offset:size:name` with the path of a tar.

    Safe in threads and in forked or spawned processes.
    """

    root: str

    def __call__(self, location: str) -> Image:
        in_tar = _TAR_AND_MEMBER.fullmatch(location)
        return MemberOpener(f"{self.root}/{in_tar[1]}")(in_tar[2]) if in_tar else FileOpener(self.root)(location)


def digest_of_members(members: Iterable[Member]) -> str:
    """Return the SHA-256 over the name, size and checksum of each member, in the order given."""
    return digest_of_entries((member.name, str(member.size), member.checksum) for member in members)


def refuse_gzip(archive: Path, remedy: str) -> None:
    """Raise `PipelineError` with the remedy for an archive that is compressed as a whole, whatever its name says."""
    with naming_faults(str(archive)), open(archive, "rb") as content:
        if content.read(len(GZIP)) == GZIP:
            raise PipelineError(f"{archive}: is compressed, so it can't be read at random; {remedy}")


def read_member(archive: str, location: str) -> bytes:
    """Return the content at a location from `list_members`; raises `UnreadableImageError`."""
    return (_read_zip if archive.lower().endswith(".zip") else _read_tar)(archive, location)


def _list_zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            # orig_filename: zipfile rewrites names on Windows and cuts them at a zero byte.
            name = safe_name(_in_unicode(info), str(archive))
            if info.flag_bits & 1:
                raise PipelineError(f"{archive}: member '{name}' is encrypted; repack the archive without a password")
            if stat.S_ISLNK(info.external_attr >> 16):
                _refuse_link(str(archive), name)
                continue
            yield Member(name, info.filename, info.file_size, f"{info.CRC:08x}", info.is_dir())


def _in_unicode(info: zipfile.ZipInfo) -> str:
    """Return a member's name; many tools write UTF-8 without the flag that says so, which zipfile takes for CP437."""
    if info.flag_bits & _UTF8_FLAG:
        return info.orig_filename
    try:
        return info.orig_filename.encode("cp437").decode()
    except UnicodeError:
        return info.orig_filename


def _list_tar(archive: Path, checksum: bool) -> Iterator[Member]:
    with open(archive, "rb") as content:
        yield from tar_members(content, str(archive), checksum=checksum)


def tar_members(content: IO[bytes], source: str, start: int = 0, checksum: bool = True) -> Iterator[Member]:
    """Yield the files and folders of a tar in its order; links and special files are left out.

    What this raises for a broken tar, `naming_faults` turns into a message.

    Parameters
    ----------
    content : binary file
        The open tar.
    source : str
        What messages call it.
    start : int
        Where the tar begins in the file that locations refer to, in bytes: not 0 for a tar inside a tar.
    checksum : bool
        Read every file's content for its SHA-256.

    Raises
    ------
    PipelineError
        An image is a link or a special file, or a name leads out of the tar.
    """
    with tarfile.open(fileobj=content, mode="r:") as opened:
        for info in opened:
            opened.members.clear()  # type: ignore[attr-defined]  # unknown to typeshed; it keeps a kilobyte for each
            name = safe_name(info.name, source)
            if info.isdir():
                yield Member(name, "", 0, "", True)
            elif info.isreg() and not info.issparse():
                digest = _sha256(content, info.offset_data, info.size) if checksum else ""
                location = f"{start + info.offset_data}:{info.size}:{info.name}"
                yield Member(name, location, info.size, digest, False)
            else:
                _refuse_link(source, name)
        check_tar_end(content, opened.offset)


def check_tar_end(content: IO[bytes], end: int) -> None:
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


def _refuse_link(source: str, name: str) -> None:
    if is_image_name(name):
        raise PipelineError(f"{source}: image '{name}' is a link or a special file; repack it as a plain file")


def _sha256(content: IO[bytes], offset: int, size: int) -> str:
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
        # Held until it is read: another thread may push the handle out of the cache, which closes it.
        file = _file_of_process(archive, os.getpid())
        content = os.pread(file.fileno(), int(size), int(offset))
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
