"""Files of the artefacts that figures are drawn from."""

from __future__ import annotations

from pathlib import Path

from pipeline_lib.core import artefacts


def checked(folder: Path, file: str, **expected: object) -> Path:
    """Return the path of a file of an artefact.

    Raises `ArtefactError` when the artefact is damaged, or its spec has other values than the `expected` ones.
    """
    artefacts.read(folder, expected=expected)
    return Path(folder) / file
