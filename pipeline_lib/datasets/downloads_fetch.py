"""Fetch one file: resumed where it stopped, retried, checked while it comes, in place only when it is whole.

The bytes go to `<file>.partial`. `<file>.partial.json` says what they are the beginning of: the address, the size and
the server's version mark (ETag or time of change). Only the same version from the same address is continued, so that
the halves of two different files are never glued together.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import shutil
import ssl
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError

from pipeline_lib.core.artefacts import file_sha256, writing_file
from pipeline_lib.core.errors import PipelineError, one_line
from pipeline_lib.core.progress import Progress

_PIECE_BYTES = 1 << 16
_TIMEOUT_SECONDS = 60.0
_TRIES_IN_A_ROW = 5  # a try that brings new bytes starts the count again
_FIRST_PAUSE_SECONDS = 1.0
_TRANSIENT_STATUS = (408, 425, 429)
_LOGIN_STATUS = (401, 403)
_RANGE_NOT_SATISFIABLE = 416
_PARTIAL_CONTENT = 206
_SERVER_ERROR = 500


@dataclass(frozen=True)
class Fetched:
    """A file that is whole: where it came from, its size and its SHA-256."""

    address: str
    bytes: int
    sha256: str


class _InterruptedError(Exception):
    """What may work the next time."""


class _UnavailableError(Exception):
    """What will not work from this address."""


def fetch(addresses: Sequence[str], target: Path, sha256: str | None) -> Fetched:
    """Fetch a file from the first address that gives it, with this SHA-256 unless that is None.

    Raises
    ------
    PipelineError
        No address gave it; the one line says what was wrong with each. Then nothing but a `.partial` that the next call
        continues is left behind; after a wrong checksum not even that.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    faults: list[str] = []
    for address in addresses:
        if faults:
            print(f"{target}: {faults[-1]}; trying the next address", file=sys.stderr, flush=True)
        try:
            found = _fetch_with_retries(address, target)
        except _UnavailableError as fault:
            faults.append(f"{address}: {fault}")
            continue
        if sha256 in (None, found.sha256):
            partial_of(target).replace(target)
            _note_of(target).unlink(missing_ok=True)
            return found
        _forget(target)
        faults.append(f"{address}: SHA-256 is {found.sha256}, but {sha256} was wanted")
    if not any(_resumable(address, target)[0] for address in addresses):
        _forget(target)
    raise PipelineError(
        f"{target}: can't be fetched ({'; '.join(faults)}); check the addresses and the sha256, or place the file there"
    )


def partial_of(target: Path) -> Path:
    """Return the file that the bytes go to while they come."""
    return target.with_name(f"{target.name}.partial")


def _fetch_with_retries(address: str, target: Path) -> Fetched:
    furthest = failures = 0
    while True:
        try:
            return _try_once(address, target)
        except _InterruptedError as fault:
            size = partial_of(target).stat().st_size if partial_of(target).exists() else 0
            failures = 1 if size > furthest else failures + 1
            furthest = max(size, furthest)
            if failures == _TRIES_IN_A_ROW:
                raise _UnavailableError(f"{fault}, {failures} times in a row") from None
            pause = _FIRST_PAUSE_SECONDS * 2 ** (failures - 1) * random.uniform(0.5, 1.5)
            print(f"{address}: {fault}; trying again in {pause:.1f} s", file=sys.stderr, flush=True)
            time.sleep(pause)


def _try_once(address: str, target: Path) -> Fetched:
    """Bring the partial file to its end, or raise one of the two errors."""
    partial = partial_of(target)
    start, version, size = _resumable(address, target)
    if start and start == size:  # killed after the last byte
        return Fetched(address, size, file_sha256(partial))
    request = urllib.request.Request(address, headers={"User-Agent": "pipeline_lib"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", version)  # another version of the file is sent from its beginning
    with _opened(request, target) as response:
        if response.status == _PARTIAL_CONTENT:
            is_rest = (response.headers.get("Content-Range") or "").startswith(f"bytes {start}-")
            if not is_rest or _version(response) not in (None, version):
                _forget(target)
                raise _InterruptedError("the server sent something else than the rest of the file")
        else:
            start = 0
        length = response.headers.get("Content-Length")
        size = start + int(length) if length and length.isdecimal() else None
        if not start:
            partial.unlink(missing_ok=True)
            _write_note(address, target, response, size)
        return _receive(response, target, start, size, address)


def _receive(response: Any, target: Path, start: int, size: int | None, address: str) -> Fetched:
    digest, partial = hashlib.sha256(), partial_of(target)
    free = shutil.disk_usage(partial.parent).free
    if size is not None and size - start > free:
        raise PipelineError(f"{target}: needs {(size - start) / 1e9:.1f} GB, but {free / 1e9:.1f} are free there")
    received = start
    with open(partial, "r+b" if start else "wb") as file:
        while file.tell() < start:
            digest.update(file.read(min(_PIECE_BYTES, start - file.tell())))
        progress = Progress(size, "bytes", target.name, done=start) if size else None
        with progress or contextlib.nullcontext():
            for piece in _pieces(response):
                _write(file, piece, target, size)
                digest.update(piece)
                received += len(piece)
                if progress:
                    progress.advance(len(piece))
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    if size is not None and received != size:
        raise _InterruptedError(f"the connection ended after {received:,} of {size:,} bytes")
    return Fetched(address, received, digest.hexdigest())


def _write(file: BinaryIO, piece: bytes, target: Path, size: int | None) -> None:
    try:
        file.write(piece)
    except OSError:
        # Of a file that may have no end, what is there already is worth nothing, and keeps the disk full.
        if size is None:
            _forget(target)
        raise


def _pieces(response: Any) -> Iterator[bytes]:
    while True:
        try:
            piece = response.read(_PIECE_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _InterruptedError(f"the connection broke ({one_line(error)})") from None
        if not piece:
            return
        yield piece


def _opened(request: urllib.request.Request, target: Path) -> Any:
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        answer = f"HTTP {error.code} {error.reason}"
        if error.code == _RANGE_NOT_SATISFIABLE:
            _forget(target)
        if error.code in (*_TRANSIENT_STATUS, _RANGE_NOT_SATISFIABLE) or error.code >= _SERVER_ERROR:
            raise _InterruptedError(answer) from None
        hint = ": it may ask for a login or for terms to be accepted" if error.code in _LOGIN_STATUS else ""
        raise _UnavailableError(answer + hint) from None
    except (URLError, OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if request.type == "file" or isinstance(reason, ssl.SSLCertVerificationError):
            raise _UnavailableError(one_line(reason)) from None
        raise _InterruptedError(one_line(reason)) from None


def _note_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial.json")


def _version(response: Any) -> str | None:
    tag = response.headers.get("ETag")
    # A weak mark does not promise equal bytes.
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _write_note(address: str, target: Path, response: Any, size: int | None) -> None:
    """Note which version of the file is coming; without a version mark nothing is noted, and nothing continued."""
    version = _version(response)
    if version and response.status:  # files on this machine and ftp have no ranges
        with writing_file(_note_of(target)) as file:
            json.dump({"address": address, "version": version, "bytes": size}, file)
    else:
        _note_of(target).unlink(missing_ok=True)


def _resumable(address: str, target: Path) -> tuple[int, str, int | None]:
    """Return how many bytes of the file are there, its version mark and its size; 0 bytes for none to be continued."""
    try:
        note = json.loads(_note_of(target).read_text(encoding="utf-8"))
        if note["address"] == address:
            return partial_of(target).stat().st_size, note["version"], note["bytes"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # no note, or a damaged one: start again
    return 0, "", None


def _forget(target: Path) -> None:
    partial_of(target).unlink(missing_ok=True)
    _note_of(target).unlink(missing_ok=True)
