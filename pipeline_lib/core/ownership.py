"""Whose a folder or file is: nothing is deleted or overwritten that isn't known to be ours.

A folder is ours if its manifest says so and it holds what the manifest lists, no more. That a file is ours, its writer
has to show.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline_lib.core.errors import ArtefactError, PipelineError

MANIFEST = "manifest.json"
# A run leaves it in the results folder that it works on; one below another is a world of its own.
RUN_LOCK = ".running.lock"
# Any look at a run, dry ones too, describes its jobs there.
JOBS = ".jobs"
# In a folder that is being written.
DRAFT_MARK = ".draft"
# The folders of what every run makes first. In a folder around results there are others, such as `results/report`.
_FIRST = ("datasets", "backbones")
# Left by file managers and by Snakemake; nobody misses them.
_DEBRIS = {".DS_Store", "Thumbs.db", "desktop.ini", ".snakemake_timestamp", DRAFT_MARK}
_KEYS = {"format", "stage", "spec", "facts", "code", "inputs", "files", "derivation", "content"}
# A manifest with a flipped bit, or of an earlier format, is ours all the same.
_ENOUGH_KEYS = 6


def require_replaceable(directory: Path, stage: str) -> None:
    """Raise `ArtefactError` unless a folder is new, empty, or an artefact of a stage with nothing added to it."""
    if not os.path.lexists(directory):
        return
    if not directory.is_dir():
        raise ArtefactError(f"{directory}: is a file, but an artefact is a folder; move it, or choose another output")
    if Path.cwd().is_relative_to(directory.resolve()):
        raise ArtefactError(f"{directory}: is the current folder, or holds it; choose another output")
    found = _require_ours(directory)
    if found is not None and found.get("stage") != stage:
        raise ArtefactError(
            f"{directory}: holds an artefact of stage '{found.get('stage')}', not of '{stage}', and is left alone; "
            "move or delete it, or choose another output"
        )


def remove(directory: Path) -> None:
    """Delete an artefact, whole or damaged; raises `ArtefactError` for a folder that is none or holds more."""
    _require_ours(directory)
    shutil.rmtree(directory.resolve())
    if directory.is_symlink():
        directory.unlink()


def require_results(results: Path) -> None:
    """Raise `PipelineError` unless a folder is new, holds the results of a run, or nothing but hidden files and text.

    A run deletes and replaces what it takes for its own there.
    """
    if results.exists() and not results.is_dir():
        raise PipelineError(f"{results}: is a file, but results_dir is a folder; choose another")
    if not results.is_dir() or (results / RUN_LOCK).exists() or (results / JOBS).is_dir():
        return
    if not Path.cwd().is_relative_to(results.resolve()):
        others = [path for path in results.iterdir() if path.is_dir() or not path.name.endswith((".md", ".txt"))]
        if all(path.name.startswith(".") and path.is_file() for path in others):
            return
        first = (path for kind in _FIRST for path in results.glob(f"{kind}/*/{MANIFEST}"))
        if any(is_artefact(path.parent) for path in first):
            return
    raise PipelineError(
        f"{results}: is no folder of results, since it holds what no run made; choose a new or an empty results_dir"
    )


def is_artefact(directory: Path) -> bool:
    """Return whether a folder's manifest is one of ours, be it damaged or of an earlier format."""
    return _manifest(directory) is not None


def require_replaceable_file(path: Path, what: str, is_ours: Callable[[Path], bool]) -> None:
    """Raise `PipelineError` if a file is there that isn't ours.

    Parameters
    ----------
    path
        What is to be written.
    what
        What it would be, for the message.
    is_ours
        Looks into a plain file, and says whether we wrote it; errors of reading mean no.
    """
    if not os.path.lexists(path):
        return
    try:
        ours = path.is_file() and is_ours(path)
    except (OSError, ValueError, PipelineError):
        ours = False
    if not ours:
        raise PipelineError(f"{path}: exists, and is not known to be {what}; move it, or choose another name")


def _require_ours(directory: Path) -> dict[str, Any] | None:
    """Return the manifest of an artefact, None for an empty folder; raises `ArtefactError` for anything else."""
    found = _manifest(directory)
    listed = set() if found is None else {MANIFEST, *found["files"]}
    for name in _files(directory):
        if found is None:
            raise ArtefactError(
                f"{directory}: holds files but no {MANIFEST} of ours ('{name}' is there), so it is not known to be an "
                "artefact and is left alone; move or delete it, or choose another output"
            )
        if name not in listed:
            raise ArtefactError(
                f"{directory}: is an artefact, but '{name}' is no part of it and would be lost; move it, or choose "
                "another output"
            )
    return found


def _files(directory: Path) -> Iterator[str]:
    """Yield what in a folder isn't itself a folder, by its path below it."""
    for folder, subfolders, files in os.walk(directory):
        links = [name for name in subfolders if Path(folder, name).is_symlink()]
        for name in sorted({*files, *links} - _DEBRIS):
            yield Path(folder, name).relative_to(directory).as_posix()


def _manifest(directory: Path) -> dict[str, Any] | None:
    path = directory / MANIFEST
    try:
        content = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or len(_KEYS & content.keys()) < _ENOUGH_KEYS:
        return None
    return content if isinstance(content.get("files"), dict) else None
