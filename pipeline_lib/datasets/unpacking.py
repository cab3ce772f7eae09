"""Unpack a zip or tar (also .gz, .bz2, .xz) into a folder, and nothing anywhere else.

Refused are, by name: members with absolute names or `..`, links that leave the folder, members that would be written
through a link, and devices and pipes. An archive that grows beyond all measure is stopped before the disk is full.
"""

from __future__ import annotations

import lzma
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, BinaryIO, cast

from pipeline_lib.core.errors import PipelineError, one_line
from pipeline_lib.core.progress import Progress
from pipeline_lib.core.recognise import misnamed
from pipeline_lib.datasets.archive_members import check_tar_end
from pipeline_lib.datasets.base import safe_name

_PIECE_BYTES = 1 << 20
# No set of images comes near: its files hardly shrink. A bomb of zeros grows a thousandfold.
_MOST_GROWTH = 200
_SMALL_BYTES = 1 << 30
# What a member costs at least, on the disk and in its archive.
_MEMBER_BYTES = 512


class BrokenArchiveError(PipelineError):
    """An archive that is damaged or cut short."""


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive into an empty folder.

    Raises
    ------
    BrokenArchiveError
        The archive can't be read to its end; what was unpacked until then stays.
    PipelineError
        A member is refused; what was unpacked until then stays.
    """
    try:
        with open(archive, "rb") as raw, Progress(archive.stat().st_size, "bytes", f"unpacking {archive.name}") as done:
            (_unpack_zip if archive.suffix.lower() == ".zip" else _unpack_tar)(archive, raw, folder, done)
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise _broken(archive, error) from None
    except tarfile.FilterError as error:
        raise PipelineError(f"{archive}: a member is refused ({error}); get the archive from elsewhere") from None
    except tarfile.TarError as error:
        raise _broken(archive, error) from None
    except OSError as error:
        if error.errno is not None:  # the disk, not the archive
            raise
        raise _broken(archive, error) from None


def move_into(source: Path, target: Path) -> None:
    """Move what is in the folder `source` into the folder `target`; folders in both are merged, files replaced."""
    target.mkdir(exist_ok=True)
    for path in list(source.iterdir()):
        goal = target / path.name
        if path.is_dir() and not path.is_symlink() and goal.is_dir():
            move_into(path, goal)
        else:
            path.replace(goal)


class _Limit:
    """How much may come out of an archive: no more than the disk has, and no more than an honest archive holds."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self._archive, self._bytes = archive, 0
        self._most = max(_SMALL_BYTES, _MOST_GROWTH * archive.stat().st_size)
        self._free = shutil.disk_usage(folder).free

    def add(self, size: int) -> None:
        """Count a member before it is written; raises `PipelineError`."""
        self._bytes += max(size, _MEMBER_BYTES)
        if self._bytes > self._most:
            raise PipelineError(
                f"{self._archive}: unpacks to more than {self._most / 1e9:.1f} GB, {_MOST_GROWTH} times its own size, "
                "so it is taken for a bomb; if it is none, unpack it by hand"
            )
        if self._bytes > self._free:
            raise PipelineError(
                f"{self._archive}: unpacks to more than the {self._free / 1e9:.1f} GB that are free; free some space"
            )


def _unpack_zip(archive: Path, raw: BinaryIO, folder: Path, progress: Progress) -> None:
    limit = _Limit(archive, folder)
    with zipfile.ZipFile(raw) as opened:
        for info in opened.infolist():
            limit.add(info.file_size)
            name = safe_name(info.orig_filename, str(archive))
            if info.flag_bits & 1:
                raise PipelineError(f"{archive}: member '{name}' is encrypted; unpack the archive by hand")
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise PipelineError(f"{archive}: member '{name}' is refused: a link or a special file in a zip")
            opened.extract(info, folder)
            progress.advance(info.compress_size)


def _unpack_tar(archive: Path, raw: BinaryIO, folder: Path, progress: Progress) -> None:
    links: set[str] = set()
    limit = _Limit(archive, folder)
    with tarfile.open(fileobj=raw, mode="r:*") as opened:
        while (member := opened.next()) is not None:
            name = safe_name(member.name, str(archive))
            _check_tar_member(archive, name, member, links)
            limit.add(member.size)
            if member.issym():
                links.add(name)
            opened.extract(member, folder, filter="data")
            opened.members.clear()  # type: ignore[attr-defined]  # unknown to typeshed; it keeps a kilobyte for each
            progress.advance(raw.tell() - progress.done)
        # A compressed file is checked against its own checksum only where it is read to its end, as here.
        check_tar_end(cast(IO[bytes], opened.fileobj), opened.offset)


def _check_tar_member(archive: Path, name: str, member: tarfile.TarInfo, links: set[str]) -> None:
    """Raise for a member that is neither a file, a folder nor a link inside, or that lies behind a link."""
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise PipelineError(f"{archive}: member '{name}' is refused: a device or a pipe")
    parts = name.split("/")
    for end in range(1, len(parts) + 1):
        if links and "/".join(parts[:end]) in links:
            raise PipelineError(f"{archive}: member '{name}' is refused: it would be written through a link")
    if member.islnk():
        target = safe_name(member.linkname, f"{archive}: hard link '{name}'")
        if any(target == link or target.startswith(f"{link}/") for link in links):
            raise PipelineError(f"{archive}: member '{name}' is refused: a hard link through a link")
    elif member.issym():
        # `..` only at the beginning: behind a link it would mean another folder than it seems to.
        steps = member.linkname.split("/")
        above = next((count for count, step in enumerate(steps) if step != ".."), len(steps))
        leaves = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname)).split("/")[0] == ".."
        if member.linkname.startswith("/") or ".." in steps[above:] or leaves:
            raise PipelineError(
                f"{archive}: member '{name}' is refused: its link to '{member.linkname}' leaves the folder"
            )


def _broken(archive: Path, error: Exception) -> BrokenArchiveError:
    return BrokenArchiveError(f"{archive}: {misnamed(archive) or f'broken or cut short ({one_line(error)})'}")
