"""The user's own files behind an artefact: whether they are still what it was made from.

What was seen of them is kept beside the description of the job, outside the artefact: times and inodes differ between
two copies of the same data, and equal work must give equal bytes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Protocol

from pipeline_lib.core.artefacts import file_digest, writing_file
from pipeline_lib.core.jobs import Job
from pipeline_lib.core.recognise import require_no_pipe
from pipeline_lib.core.spec import Spec

_SMALL_BYTES = 1_000_000


class Watched(Protocol):
    """Files that are watched together, such as all images below a folder (`datasets.files.Tree`)."""

    def exists(self) -> bool:
        """Return whether they are there."""

    def seen(self) -> list[int | str] | None:
        """Return their number, the newest time in ns since 1970, and a digest of all that tells a change."""


Source = Path | Watched
Seen = dict[str, list[int | str] | None]


def path_beside(description: Path) -> Path:
    """Return where what was seen of a job's sources is kept."""
    return description.with_suffix(".sources.json")


@contextlib.contextmanager
def noted(stage: ModuleType, jobs: Iterable[tuple[Path, Job[Spec]]]) -> Iterator[None]:
    """Note what was seen of the sources of jobs before they ran, once they ran: one that fails was made of nothing new.

    jobs: each with the file that describes it. Raises `PipelineError` for a pipe among the sources.
    """
    seen = {}
    if hasattr(stage, "sources"):
        for description, job in jobs:
            sources = stage.sources(job.spec)
            require_files(sources)
            seen[path_beside(description)] = look(sources)
    yield
    for path, found in seen.items():
        record(path, found)


def look(sources: Iterable[Source]) -> Seen:
    """Return size, time and, of small files, checksum of each source."""
    return {str(source): _seen(source) for source in sources}


def record(path: Path, seen: Seen) -> None:
    """Write down what was seen."""
    with writing_file(path) as file:
        json.dump(seen, file, indent=1)


def require_files(sources: Iterable[Source]) -> None:
    """Raise `PipelineError` for a pipe among the sources of a job."""
    for source in sources:
        if isinstance(source, Path):
            require_no_pipe(source)


def are_unchanged(path: Path, sources: Iterable[Source], made: float) -> bool:
    """Return whether sources are what was noted; where nothing was, whether none is newer than the artefact.

    Parameters
    ----------
    path : Path
        What was noted.
    sources : iterable of Source
        Files and folders. A folder changes when something in it comes or goes.
    made : float
        Time of the artefact's manifest, in seconds since 1970.
    """
    sources = list(sources)
    if not any(source.exists() for source in sources):
        return True  # nothing can be told of data that was removed to save space; without it nothing could be made
    try:
        noted = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return none_is_newer(sources, made)
    return noted.keys() == {str(source) for source in sources} and all(
        _is_as(source, noted[str(source)]) for source in sources
    )


def none_is_newer(sources: Iterable[Source], made: float) -> bool:
    """Return whether no source that is there is newer than a time, in seconds since 1970."""
    return all(seen is None or int(seen[1]) <= made * 1e9 for seen in map(_seen, sources))


def _seen(source: Source) -> list[int | str] | None:
    if not isinstance(source, Path):
        return source.seen()
    try:
        status = source.stat()
    except OSError:
        return None
    small = source.is_file() and status.st_size <= _SMALL_BYTES
    return [status.st_size, status.st_mtime_ns, file_digest(source) if small and status.st_size else ""]


def _is_as(source: Source, noted: list[int | str] | None) -> bool:
    """Return whether a source has the noted time and size, or, being small, the noted bytes."""
    if not isinstance(source, Path):
        return source.seen() == noted
    try:
        status = source.stat()
    except OSError:
        return noted is None
    if noted is None:
        return False
    size, time, digest = noted
    same_size = status.st_size == size or source.is_dir()
    return same_size and (status.st_mtime_ns == time or bool(digest and file_digest(source) == digest))
