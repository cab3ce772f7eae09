"""What a file is that isn't what its name says: a pointer, a web page, something compressed, a pipe.

Whoever can't read a file asks here before it is called damaged.
"""

from __future__ import annotations

from pathlib import Path

from pipeline_lib.core.errors import PipelineError

GZIP = b"\x1f\x8b"
_POINTERS = {
    b"version https://git-lfs.github.com/spec/": "is a pointer of Git LFS, not the file itself; run `git lfs pull`",
    b"/annex/objects/": "is a pointer of git-annex, not the file itself; run `git annex get`",
}
# What files begin with, what that is, and the suffixes that say so.
_PACKED = {
    GZIP: ("compressed with gzip", (".gz", ".tgz")),
    b"BZh": ("compressed with bzip2", (".bz2", ".tbz2")),
    b"\xfd7zXZ\x00": ("compressed with xz", (".xz", ".txz")),
    b"\x28\xb5\x2f\xfd": ("compressed with Zstandard", (".zst",)),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", (".7z",)),
    b"Rar!": ("a RAR archive", (".rar",)),
}
_PAGE_STARTS = (b"<!doctype html", b"<html", b"<?xml")
_PAGE = "is a web page, not the file; its server may have asked for a login or an address have changed: get it again"
_HEIF = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1")
# As many bytes of a file say what it is.
START_BYTES = 512


def misnamed(path: Path | str) -> str | None:
    """Return what a file is instead of what it was taken for, and what to do; None where nothing is known.

    Parameters
    ----------
    path
        A file that could not be read as what it was expected to be.
    """
    try:
        if not Path(path).is_file():
            return None
        with open(path, "rb") as file:
            start = file.read(START_BYTES)
    except OSError:
        return None
    return misnamed_start(start, str(path))


def misnamed_start(start: bytes, name: str = "") -> str | None:
    """Return what a file is by its first bytes, as `misnamed`; name: of the file, where it has one."""
    if not start:
        return "is an empty file"
    for mark, what in _POINTERS.items():
        if start.startswith(mark):
            return what
    for mark, (packed, suffixes) in _PACKED.items():
        if start.startswith(mark):
            return None if name.lower().endswith(suffixes) else f"is {packed}, whatever its name says; unpack it first"
    if start[4:12] in _HEIF:
        return "is a HEIF image (.heic), which is not read; convert it to JPEG or PNG"
    return _PAGE if start.lstrip().lower().startswith(_PAGE_STARTS) else None


def require_no_pipe(path: Path) -> None:
    """Raise `PipelineError` for what is neither a file nor a folder: whoever opened a pipe would wait for ever."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise PipelineError(f"{path}: is a pipe or a device, no plain file; write what it gives into a file")
