"""The files of an artefact, each checked against its checksum while it is first read.

Checking a file and then reading it takes the bytes from memory twice; here each piece is checked while it is still in
the processor's cache, so the first reading costs little more than any other. That is why nothing is remembered from
one process to the next: size and time don't change when a disk rots, and a record can be copied with its results.
"""

from __future__ import annotations

from pathlib import Path

import xxhash

from pipeline_lib.core.artefacts import Manifest, problems
from pipeline_lib.core.errors import ArtefactError

# In the second-level cache of a core, which the checksum is computed from.
_PIECE_BYTES = 256 << 10


class CheckedFiles:
    """Reads the files of an artefact; safe to use from several threads.

    Parameters
    ----------
    manifest : Manifest
        The artefact, whose files haven't been checked.
    remedy : str
        What a user can do about a damaged file.

    Raises
    ------
    ArtefactError
        A file is missing or of another size; the bytes are checked in `read_into`.
    """

    def __init__(self, manifest: Manifest, remedy: str) -> None:
        self._folder, self._remedy = manifest.directory, remedy
        for problem in problems(manifest, checksums=False):
            raise ArtefactError(f"{problem}; {remedy}")
        self._unchecked: dict[str, str] = {name: file["xxh3_128"] for name, file in manifest.files.items()}

    def check(self, name: str) -> None:
        """Check a file without reading from it; raises `ArtefactError`."""
        self.read_into(name, 0, memoryview(b""))

    def read_into(self, name: str, start: int, target: memoryview) -> None:
        """Fill a buffer from a position of a file; raises `ArtefactError` if the file is damaged."""
        path, checksum = self._folder / name, self._unchecked.get(name)
        if checksum is None:
            with open(path, "rb", buffering=0) as file:
                file.seek(start)
                if file.readinto(target) != len(target):
                    raise ArtefactError(f"{path}: ends before byte {start + len(target)}; {self._remedy}")
        elif _read_all(path, start, target) != checksum:
            raise ArtefactError(f"{path}: damaged (its checksum differs from the manifest's); {self._remedy}")
        self._unchecked.pop(name, None)


def _read_all(path: Path, start: int, target: memoryview) -> str:
    """Fill a buffer from a position of a file and return the checksum of all of it."""
    digest, position, stop = xxhash.xxh3_128(), 0, start + len(target)
    elsewhere = memoryview(bytearray(_PIECE_BYTES))
    with open(path, "rb", buffering=0) as file:
        while True:
            if start <= position < stop:
                piece = target[position - start : position - start + _PIECE_BYTES]
            else:
                piece = elsewhere[: start - position] if position < start else elsewhere
            count = file.readinto(piece)
            if not count:
                return digest.hexdigest()
            digest.update(piece[:count])
            position += count
