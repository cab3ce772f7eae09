"""The files of an artefact, each checked against its checksum while it is first read.

Checking a file and then reading it takes the bytes from memory twice; here each piece is checked while it is still in
the processor's cache, so the first reading costs little more than any other. That is why nothing is remembered from
one process to the next: size and time don't change when a disk rots, and a record can be copied with its results.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import xxhash

from pipeline_lib.core.artefacts import Manifest, problems
from pipeline_lib.core.errors import ArtefactError

# Fits in the second-level cache of a core, from which the checksum is computed.
_PIECE_BYTES = 512 << 10


class CheckedFiles:
    """Reads the files of an artefact; safe to use from several threads.

    Parameters
    ----------
    manifest : Manifest
        The artefact, whose files haven't been looked at.
    remedy : str
        What a user can do about a file that is missing or damaged.
    """

    def __init__(self, manifest: Manifest, remedy: str) -> None:
        self._manifest, self._folder, self._remedy = manifest, os.fspath(manifest.directory), remedy
        self._unchecked: dict[str, str] = {name: file["xxh3_128"] for name, file in manifest.files.items()}

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """Check all files when the block raises anything: a library that is given a damaged file says anything."""
        try:
            yield
        except ArtefactError:
            raise
        except Exception:
            for problem in problems(self._manifest):
                raise ArtefactError(f"{problem}; {self._remedy}") from None
            raise

    def read_into(self, name: str, start: int, target: memoryview) -> None:
        """Fill a buffer from a position of a file; raises `ArtefactError` if the file is missing or damaged."""
        path, checksum = f"{self._folder}/{name}", self._unchecked.get(name)
        with self.blamed():
            if checksum is None:
                with open(path, "rb", buffering=0) as file:
                    file.seek(start)
                    is_whole = file.readinto(target) == len(target)
            else:
                is_whole = _read_all(path, start, target) == checksum
            if not is_whole:
                raise OSError(f"{path}: reads differently from one time to the next; check the disk")
        self._unchecked.pop(name, None)


def _read_all(path: str, start: int, target: memoryview) -> str:
    """Fill a buffer from a position of a file and return the checksum of all of it."""
    digest, position, stop = xxhash.xxh3_128(), 0, start + len(target)
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        elsewhere = memoryview(bytearray(min(_PIECE_BYTES, max(0, size - len(target)))))
        while position < size:
            if start <= position < stop:
                piece = target[position - start : position - start + _PIECE_BYTES]
            else:
                piece = elsewhere[: start - position] if position < start else elsewhere
            count = file.readinto(piece)
            if not count:
                break
            digest.update(piece[:count])
            position += count
    return digest.hexdigest()
