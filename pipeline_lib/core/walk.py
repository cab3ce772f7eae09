"""Where artefacts lie below a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline_lib.core.ownership import MANIFEST, RUN_LOCK


def _ignore(error: OSError) -> None:
    pass


def folders_of_artefacts(
    root: Path, on_error: Callable[[OSError], None] = _ignore, worlds: bool = True
) -> Iterator[Path]:
    """Yield the folders with a manifest below a folder in a fixed order; hidden ones are left out, drafts among them.

    Links are followed, except to a folder that the link itself lies in.

    Parameters
    ----------
    root : Path
        Where to look.
    on_error : callable
        Told of each folder that can't be listed; its `filename` says which.
    worlds : bool
        Whether to look into the results of other runs that lie in those of one.
    """
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(Path(root), frozenset())]
    while waiting:
        folder, above = waiting.pop()
        try:
            status = folder.stat()
            with os.scandir(folder) as entries:
                names = {entry.name: entry.is_dir() for entry in entries}
        except OSError as error:
            error.filename = str(folder)
            on_error(error)
            continue
        identity = (status.st_dev, status.st_ino)
        if identity in above or (above and not worlds and RUN_LOCK in names):
            continue
        if MANIFEST in names:
            yield folder
        below = sorted((name for name, is_folder in names.items() if is_folder and name[0] != "."), reverse=True)
        waiting += [(folder / name, above | {identity}) for name in below]
