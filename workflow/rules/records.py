"""Records of how each result was made, kept with the results and so copied, moved and shared with them.

Snakemake decides by its records (`.snakemake/metadata`: the parameters, code and inputs behind each output) what is
stale; of an output without a record it trusts the time of the file alone. Here the records lie in
`<results>/records`, and `.snakemake/metadata` is a link to them. When `.snakemake` is deleted, or the results are
copied to another folder or machine, or several folders write the same results, the records are there: nothing is made
again without need, and nothing stale is trusted. What they don't describe counts as stale.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import MANIFEST, RUN_LOCK, Manifest, canonical_json, file_digest
from pipeline_lib.core.errors import ArtefactError

RECORDS = "records"
UNKNOWN = "unknown: no record says how this was made"
REPLACED = "unknown: this is not what the record describes"
_NO_OUTPUTS = (RECORDS, "logs", "benchmarks")
# The format in which Snakemake compares parameters; an older one is not compared at all.
_RECORD_FORMAT = 6
_NAME_BYTES = 254
# Snakemake compares inputs up to this size by content, larger ones by their time.
_COMPARED_BYTES = 1_000_000
# Their parameter is not the spec in their manifest: where a file is fetched from changes no file.
_OTHER_PARAMETERS = ("download", "dataset_card")


def link_records(directory: Path, results: Path) -> int:
    """Let Snakemake keep its records for a working directory in `results`; return how many outputs have none.

    When the link is new here, results may have come from elsewhere. Outputs without a record are then marked as stale,
    and those that a copy has given a new time get their old one back, if they are what was recorded.
    """
    records, link = results / RECORDS, directory / ".snakemake" / "metadata"
    if is_linked(directory, results):
        return 0
    for folder in (records, link.parent):
        folder.mkdir(parents=True, exist_ok=True)
    _take_over(link, records, results)
    link.symlink_to(records.absolute(), target_is_directory=True)
    _restore_times(directory, records)
    unknown = [path for path in _outputs(results) if not _record_path(records, str(path)).exists()]
    for path in unknown:
        _write(_record_path(records, str(path)), {"params": [UNKNOWN], "record_format_version": _RECORD_FORMAT})
    return len(unknown)


def link_read_only(directory: Path, results: Path) -> None:
    """Let Snakemake read the records of results that can't be written: nothing is marked or given another time."""
    records, link = results / RECORDS, directory / ".snakemake" / "metadata"
    if link.is_symlink():
        link.unlink()
    if records.is_dir() and not link.exists():
        link.symlink_to(records.absolute(), target_is_directory=True)


def is_linked(directory: Path, results: Path) -> bool:
    """Return whether Snakemake keeps its records for a working directory in these results."""
    records, link = results / RECORDS, directory / ".snakemake" / "metadata"
    return link.is_symlink() and link.readlink() == records.absolute() and records.is_dir()


def mark_replaced(directory: Path, results: Path) -> list[Path]:
    """Mark artefacts as stale that are not those that their records describe; return their manifests.

    A manifest whose time is the recorded one is taken for the recorded one. Any other must be of the recorded spec,
    and made from the inputs that are there. A damaged record, of which Snakemake would take no notice, says nothing.
    """
    replaced = []
    for path, output in _recorded(results / RECORDS):
        record = _read(path)
        if record is None:
            _write(path, {"params": [UNKNOWN], "record_format_version": _RECORD_FORMAT})
            continue
        try:
            if output.name != MANIFEST or (directory / output).stat().st_mtime == record.get("endtime"):
                continue
        except OSError:
            continue
        if record.get("endtime") is None or record.get("params") == [REPLACED]:
            continue
        if not describes(record, directory, output):
            _write(path, record | {"params": [REPLACED]})
            replaced.append(output)
    return replaced


def forget_the_future(directory: Path, results: Path) -> None:
    """Give outputs from the future the time of now.

    A clock that was ahead wrote them. Whatever is made from them would look older than they are: Snakemake would stop
    at it, or make it again in every run.
    """
    now = time.time()
    for _, output in _recorded(results / RECORDS):
        try:
            if (directory / output).stat().st_mtime > now:
                os.utime(directory / output, (now, now))
        except OSError:
            continue


def describes(record: dict[str, Any], directory: Path, output: Path) -> bool:
    """Return whether the artefact of a manifest is the one that a record describes: its spec, its inputs."""
    manifest = _manifest((directory / output).parent)
    if manifest is None:
        return False
    recorded = _text(record.get("params") or [])
    if manifest.stage not in _OTHER_PARAMETERS and canonical_json(manifest.spec) not in recorded:
        return False
    sources = [directory / path for path in record.get("input") or []]
    if not all(path.is_file() for path in sources):
        return True  # what is missing will be made, and then Snakemake compares
    manifests = {path.with_name(MANIFEST) for path in sources}
    return set(manifest.inputs.values()) <= {file_digest(path) for path in manifests if path.is_file()}


def _take_over(link: Path, records: Path, results: Path) -> None:
    """Copy records of these results from where Snakemake kept them before, and clear the way for the link."""
    if link.is_symlink():
        for path, output in _recorded(link.resolve()):
            target = records / path.relative_to(link.resolve())
            if output.is_relative_to(results) and not _is_of_another_world(output, results) and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
        link.unlink()
    elif link.is_dir():
        for path, _ in list(_recorded(link)):
            target = records / path.relative_to(link)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.move(path, target)
        shutil.rmtree(link)


def _is_of_another_world(output: Path, results: Path) -> bool:
    """Return whether an output below these results is one of other results that lie in them."""
    return any((folder / RUN_LOCK).exists() for folder in output.parents if results in folder.parents)


def _restore_times(directory: Path, records: Path) -> None:
    """Give large outputs the time at which they were made, where they are what was recorded.

    A copy has the time of copying, in any order, and by that time what is made from them would look stale.
    """
    for path, output in _recorded(records):
        try:
            if (directory / output).stat().st_size <= _COMPARED_BYTES:
                continue
        except OSError:
            continue
        manifest = _manifest((directory / output).parent)
        if manifest is None:
            continue
        record = _read(path) or {}
        if output.name == MANIFEST:
            known = describes(record, directory, output)
        else:
            known = manifest.files.get(output.name, {}).get("xxh3_128") == file_digest(directory / output)
        if known and record.get("endtime"):
            os.utime(directory / output, (record["endtime"], record["endtime"]))


def _outputs(results: Path) -> Iterator[Path]:
    """Yield the files that look like outputs of jobs: not logs, nor other results that lie in these.

    Of an artefact not what lies in its folders.
    """
    for folder, subfolders, files in os.walk(results):
        at_top = Path(folder) == results
        if at_top:
            subfolders[:] = [name for name in subfolders if name not in _NO_OUTPUTS]
        elif RUN_LOCK in files:
            subfolders.clear()
            continue
        elif MANIFEST in files:
            subfolders.clear()
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and (not at_top or name.endswith(".csv")):
                yield Path(folder, name)


def _recorded(records: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each record's file, and the output that it is about."""
    for folder, _, files in os.walk(records):
        for name in files:
            path = Path(folder, name)
            output = named_output(path.relative_to(records))
            if output is not None:
                yield path, output


def named_output(record: Path) -> Path | None:
    """Return the output that a file of Snakemake's is named after: its path in base64, in pieces `@...` if long."""
    text = "".join(part.removeprefix("@") for part in record.parts)
    try:
        return Path(urlsafe_b64decode(text).decode())
    except ValueError:
        return None  # a file of Snakemake's own


def _record_path(records: Path, output: str) -> Path:
    """Return the file of the record of an output."""
    text = urlsafe_b64encode(output.encode()).decode()
    *folders, name = [text[start : start + _NAME_BYTES] for start in range(0, len(text), _NAME_BYTES)]
    return records.joinpath(*(f"@{folder}" for folder in folders), name)


def _text(parameters: list[str]) -> str:
    """Return recorded parameters as one text; each is the `repr` of a value."""
    texts: list[str] = []
    for parameter in parameters:
        try:
            value = ast.literal_eval(parameter)
        except (ValueError, SyntaxError):
            continue
        texts.extend(map(str, value) if isinstance(value, (list, tuple)) else [str(value)])
    return "\n".join(texts)


def _manifest(folder: Path) -> Manifest | None:
    """Return the manifest of an artefact, or None where it is missing or damaged."""
    try:
        return artefacts.read(folder, artefacts.stage_of(folder), verify=False)
    except (OSError, ArtefactError):
        return None


def _read(path: Path) -> dict[str, Any] | None:
    """Return a record, or None where it is damaged: of a disk that was full, say."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(".writing")
    partial.write_text(json.dumps(record), encoding="utf-8")
    partial.replace(path)
