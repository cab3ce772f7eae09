"""The raw files of a dataset: fetched, checked and unpacked, unless they are there already.

A folder that was unpacked here holds a hidden record, `.<archive>.unpacked.json`, with the archive's checksum; the
archive itself may then be deleted. A folder with files but without any record was placed by hand: it is taken as it is.

Files that are replaced later are noticed by the dataset's index, which watches them, and here by a wrong checksum.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from pipeline_lib.config.download import Download
from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.locks import held
from pipeline_lib.datasets.downloads_fetch import Fetched, fetch, partial_of
from pipeline_lib.datasets.unpacking import BrokenArchiveError, move_into, unpack

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

STAGE = "download"
FOUND = "found on disk"
BY_HAND = "placed by hand"
_RECORD_SUFFIX = ".unpacked.json"


def check_records(config: Config, results: Path) -> None:
    """Raise `PipelineError` if a file of a dataset was fetched with another checksum than the config now wants."""
    for name, options in config.datasets.items():
        directory = results / "downloads" / name
        if options.fetched_by != "download" or not (directory / artefacts.MANIFEST).exists():
            continue
        record = artefacts.read(directory, STAGE, verify=False)
        recorded = {entry["file"]: entry["sha256"] for entry in record.facts["files"]}
        for entry in options.download:
            found = recorded.get(entry.file)
            if None not in (found, entry.sha256) and found != entry.sha256:
                raise PipelineError(
                    f"datasets.{name}.download: sha256 of '{entry.file}' is {entry.sha256}, but {found} was fetched; "
                    f"correct it, or delete {directory}, the dataset's index and the old file"
                )


def content_of(files: Sequence[Mapping[str, Any]]) -> str:
    """Return the digest of what was fetched, wherever it came from. files: as `obtain` returns them."""
    known = [[file[name] for name in ("file", "unpacked_to", "sha256")] for file in files]
    return xxhash.xxh3_128_hexdigest(artefacts.canonical_json(known).encode())


def obtain(download: Download, data_dir: Path, downloads: Sequence[Download]) -> dict[str, Any]:
    """Get one file, and unpack it if that is asked for; return what is known of it.

    Parameters
    ----------
    download : Download
        The file.
    data_dir : Path
        What its paths start at.
    downloads : sequence of Download
        All files of the dataset: their being there doesn't mean that a folder was placed by hand.

    Returns
    -------
    dict
        `file` and `unpacked_to`, below `data_dir`; `address`, where it came from; `bytes` and `sha256`, None where the
        unpacked files were placed by hand.
    """
    found, folder = None, data_dir / (download.unpack_to or "")
    if download.unpack_to is None:
        with _alone(data_dir / download.file):
            found = _file(download, data_dir / download.file)
    else:
        with _alone(folder):
            if not _is_placed_by_hand(folder, data_dir, downloads):
                found = _unpacked(download, data_dir / download.file, folder)
    return {
        "file": download.file,
        "unpacked_to": download.unpack_to,
        "address": found.address if found else BY_HAND,
        "bytes": found.bytes if found else None,
        "sha256": found.sha256 if found else None,
    }


def _file(download: Download, target: Path) -> Fetched:
    """Return the file that is there, after a check of its checksum, or fetch it."""
    if not target.exists():
        found = fetch(download.addresses, target, download.sha256)
        if download.sha256 is None:
            print(f"{target}: not checked; put this into its download section: sha256: {found.sha256}", file=sys.stderr)
        return found
    found = Fetched(FOUND, target.stat().st_size, artefacts.file_sha256(target))
    if download.sha256 not in (None, found.sha256):
        raise PipelineError(
            f"{target}: SHA-256 is {found.sha256}, but {download.sha256} is wanted; delete the file, or correct sha256"
        )
    return found


def _unpacked(download: Download, archive: Path, folder: Path) -> Fetched:
    """Return the archive whose content is in the folder already, or get and unpack it."""
    record_path = folder / f".{download.file.replace('/', '_')}{_RECORD_SUFFIX}"
    record = _read_record(record_path)
    if record is not None:
        if download.sha256 not in (None, record.sha256):
            raise PipelineError(
                f"{folder}: was unpacked from an archive with SHA-256 {record.sha256}, but {download.sha256} is "
                f"wanted; delete the folder and {archive}, or correct sha256"
            )
        return record
    with _alone(archive):
        is_new = not archive.exists()
        found = _file(download, archive)
    draft = folder / f".{download.file.replace('/', '_')}.unpacking"
    is_new_folder = not folder.exists()
    shutil.rmtree(draft, ignore_errors=True)  # of a run that was killed
    draft.mkdir(parents=True)
    try:
        unpack(archive, draft)
        # From here to the end the folder is incomplete, and known to be: a run that is killed is repeated.
        _write_record(record_path, found, complete=False)
        move_into(draft, folder)
        _write_record(record_path, found, complete=True)
    except BrokenArchiveError as error:
        if is_new:
            archive.unlink()
        done = "it is deleted; run again to fetch it again" if is_new else "delete it and run again to fetch it"
        raise PipelineError(f"{error}; {done}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if is_new_folder:
            with contextlib.suppress(OSError):
                folder.rmdir()
    return found


def _is_placed_by_hand(folder: Path, data_dir: Path, downloads: Sequence[Download]) -> bool:
    """Return whether the folder holds something, but no record and nothing else than what is fetched into it."""
    if not folder.is_dir():
        return False
    files = [data_dir / download.file for download in downloads]
    ours = {path.relative_to(folder).parts[0] for path in files if path.is_relative_to(folder)}
    ours |= {partial_of(path).name for path in files} | {f"{partial_of(path).name}.json" for path in files}
    names = {path.name for path in folder.iterdir()}
    if any(name.endswith(_RECORD_SUFFIX) for name in names):
        return False
    return any(not name.startswith(".") for name in names - ours)


def _write_record(path: Path, found: Fetched, complete: bool) -> None:
    with artefacts.writing_file(path) as file:
        content = {"address": found.address, "bytes": found.bytes, "sha256": found.sha256, "complete": complete}
        json.dump(content, file, indent=1)


def _read_record(path: Path) -> Fetched | None:
    """Return the archive that a folder was completely unpacked from."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Fetched(record["address"], record["bytes"], record["sha256"]) if record["complete"] else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise PipelineError(f"{path}: damaged; delete its folder and run again") from None


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Let no other process make `target` meanwhile: two datasets may share a file, and their jobs run side by side.

    The lock ends with the process that holds it, however that ends.
    """
    lock = target.with_name(f".{target.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT)
        held(handle, fcntl.flock, wait=True)
        # The last holder may have removed the file that was waited for: then another one counts.
        if lock.exists() and os.path.samestat(os.fstat(handle), lock.stat()):
            break
        os.close(handle)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)
