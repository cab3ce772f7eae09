"""Artefacts: folders that are either complete and verifiable, or not there.

A stage writes its files into a hidden folder beside the target. When all are written they are fsynced, `manifest.json`
is written last with the size and checksum of each and its own, and the folder is renamed into place. A reader checks
the manifest against what it asked for and the files against the manifest, so a truncated, swapped or bit-flipped file
is named instead of used. A manifest holds no time, host or path: equal work with equal software gives equal bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from pipeline_lib.core.drafts import draft_path, remove_abandoned_drafts, remove_draft
from pipeline_lib.core.drafts import writing_file as writing_file
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.core.ownership import DRAFT_MARK, require_replaceable
from pipeline_lib.core.ownership import MANIFEST as MANIFEST

FORMAT = 3
_FIELDS = ("stage", "spec", "facts", "code", "inputs", "files", "derivation", "content", "software")
_OWN_CHECKSUM = "manifest_xxh3_128"
_LAYOUT = re.compile("\n *")
_HASH_PIECE_BYTES = 32 << 20


@dataclass(frozen=True)
class Manifest:
    """What an artefact is: which stage made it, from which spec and inputs, and which files it has.

    `facts` are what later stages need to know (row counts, classes, dimensions), `code` the version of each component
    of the code, `inputs` the derivation and content of each artefact that was read, `files` the size in bytes and
    XXH3-128 checksum per relative path. `derivation` is the digest of what decided the content (`core.jobs`),
    `content` that of what a reader finds. `software` is the version of Python and of each package that made
    it, by name; it decides nothing.
    """

    directory: Path
    stage: str
    spec: Mapping[str, Any]
    facts: Mapping[str, Any]
    code: Mapping[str, str]
    inputs: Mapping[str, Sequence[Mapping[str, str]]]
    files: Mapping[str, Mapping[str, Any]]
    derivation: str
    content: str
    software: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Checksum of the manifest itself; it covers every file through the checksums inside."""
        return file_digest(self.directory / MANIFEST)

    @property
    def paths(self) -> dict[Path, Mapping[str, Any]]:
        """Size and checksum of each file by its path; `..` counts from the folder's own name, also of a linked one."""
        folder = os.fspath(self.directory)
        return {Path(os.path.normpath(f"{folder}/{name}")): file for name, file in self.files.items()}


@dataclass
class Draft:
    """An artefact being written: put files below `path`, what readers need into `facts`.

    content: the digest of what a reader finds, where that is less than all files and facts: None = all of them.
    """

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)
    content: str | None = None


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spare blanks: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def file_digest(path: Path) -> str:
    """Return the XXH3-128 checksum of a file.

    The file is mapped piece by piece: reading it would take about as long again, and all of it grows memory.
    """
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for start in range(0, size, _HASH_PIECE_BYTES):
            length = min(_HASH_PIECE_BYTES, size - start)
            with mmap.mmap(file.fileno(), length, offset=start, access=mmap.ACCESS_READ) as piece:
                digest.update(piece)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as model hubs and publishers of datasets print it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def writing(
    directory: Path,
    stage: str,
    spec: Mapping[str, Any],
    inputs: Mapping[str, Sequence[Mapping[str, str]]] | None = None,
    code: Mapping[str, str] | None = None,
    derivation: str = "",
    software: Mapping[str, str] | None = None,
    targets: Sequence[Path] = (),
    replace: bool = False,
) -> Iterator[Draft]:
    """Write an artefact: yields a `Draft`, publishes it as `directory` when the block ends without error.

    After an error nothing is left behind and an older artefact at `directory` is untouched. A stage calls it through
    `core.jobs.Job.writing`, which knows the rest.

    Parameters
    ----------
    targets : sequence of Path
        Where the files go that have a place of their own (a figure, a table); their manifest stays in `directory`.
    replace : bool
        Whether `directory` is known to be ours, as where a run planned it; else it must be empty or an artefact of the
        stage with nothing added to it, or `ArtefactError` is raised.
    """
    directory = Path(directory)
    if not replace:
        require_replaceable(directory, stage)
    if directory.is_symlink():
        directory = directory.resolve()
    partial = draft_path(directory)
    remove_abandoned_drafts(directory)
    partial.mkdir(parents=True)
    (partial / DRAFT_MARK).touch()
    final = {target.name: target for target in targets}
    try:
        draft = Draft(partial)
        yield draft
        files = {}
        for path in sorted(p for p in partial.rglob("*") if p.is_file() and p != partial / DRAFT_MARK):
            _fsync(path)
            relative = path.relative_to(partial).as_posix()
            if relative in final:
                relative = os.path.relpath(final[relative], directory)
            files[relative] = {"bytes": path.stat().st_size, "xxh3_128": file_digest(path)}
        content = {
            "format": FORMAT,
            "stage": stage,
            "spec": dict(spec),
            "facts": draft.facts,
            "code": dict(code or {}),
            "inputs": {name: list(records) for name, records in (inputs or {}).items()},
            "files": files,
            "derivation": derivation,
            "content": draft.content or _content_digest(draft.facts, files),
            "software": dict(software or {}),
        }
        with open(partial / MANIFEST, "w", encoding="utf-8") as file:
            file.write(_manifest_text(content))
            file.flush()
            os.fsync(file.fileno())
        # safetensors writes files that only their owner may read; here the user's umask decides.
        permissions = stat.S_IMODE((partial / MANIFEST).stat().st_mode)
        for path in (p for p in partial.rglob("*") if p.is_file()):
            if stat.S_IMODE(path.stat().st_mode) != permissions:
                path.chmod(permissions)
        if directory.exists():
            shutil.rmtree(directory)
        for name, target in final.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial / name, target)
        os.rename(partial, directory)
        (directory / DRAFT_MARK).unlink()  # only now: a draft without it would be nobody's
        _fsync(directory.parent)
    except BaseException:
        remove_draft(partial)
        raise


def read(
    directory: Path,
    stage: str | None = None,
    expected: Mapping[str, Any] | None = None,
    verify: bool = True,
    remedy: str | None = None,
) -> Manifest:
    """Read the manifest of an artefact and, unless told not to, check every file against it.

    Parameters
    ----------
    directory: the artefact's folder.
    stage: the stage that must have made it; None = any.
    expected: keys of the spec that must have these values; others may be anything.
    verify: also read each file and compare its checksum.
    remedy: what a user can do about a fault; None = delete the folder and run again.

    Raises `ArtefactError` naming the file that is missing, damaged, or not what was asked for.
    """
    directory = Path(directory)
    remedy = remedy or f"delete {directory} and run snakemake again"
    content = _read_manifest(directory, remedy)
    if stage is not None and content["stage"] != stage:
        raise ArtefactError(f"{directory}: made by stage '{content['stage']}', but '{stage}' was asked for")
    for key, value in (expected or {}).items():
        found = content["spec"].get(key)
        if canonical_json(found) != canonical_json(value):
            raise ArtefactError(
                f"{directory / MANIFEST}: '{key}' is {canonical_json(found)}, but {canonical_json(value)} was "
                f"asked for; {remedy}"
            )
    manifest = Manifest(directory, **{name: content[name] for name in _FIELDS if name in content})
    if verify:
        for problem in problems(manifest):
            raise ArtefactError(f"{problem}; {remedy}")
    return manifest


def file_of(source: Path, name: str, **expected: object) -> Path:
    """Return the path of a file of an artefact that is whole and has these values in its spec; of a file, its own."""
    if source.is_file():
        return source
    found = {path.name: path for path in read(source, expected=expected).paths}
    if name not in found:
        raise ArtefactError(f"{source}: holds no file '{name}', but {', '.join(found) or 'none'}")
    return found[name]


def rewrite(manifest: Manifest, inputs: Mapping[str, Sequence[Mapping[str, str]]], derivation: str) -> None:
    """Write an artefact's manifest anew: made from other inputs of the same content, it is what it was."""
    content = {name: getattr(manifest, name) for name in _FIELDS} | {"inputs": inputs, "derivation": derivation}
    with writing_file(manifest.directory / MANIFEST) as file:
        file.write(_manifest_text({"format": FORMAT, **content}))


def has_all_files(manifest: Manifest) -> bool:
    """Return whether the files of an artefact are there with their sizes; their bytes are not read."""
    try:
        return all(path.stat().st_size == file["bytes"] for path, file in manifest.paths.items())
    except OSError:
        return False


def problems(manifest: Manifest) -> Iterator[str]:
    """Yield one line per file of an artefact that is missing, or has a wrong size or checksum."""
    for path, expected in manifest.paths.items():
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            yield f"{path}: missing"
            continue
        if not stat.S_ISREG(found.st_mode):
            yield f"{path}: no plain file"
        elif found.st_size != expected["bytes"]:
            yield f"{path}: {found.st_size} bytes, but the manifest says {expected['bytes']}"
        elif file_digest(path) != expected["xxh3_128"]:
            yield f"{path}: damaged (its checksum differs from the manifest's)"


def _manifest_text(content: Mapping[str, Any]) -> str:
    """Return the text of a manifest, which holds the checksum of the rest of it."""
    # As it will be read: a key that is a number becomes text, which sorts in another order.
    content = json.loads(canonical_json(content))
    checksum = xxhash.xxh3_128_hexdigest(canonical_json(content).encode())
    return json.dumps({**content, _OWN_CHECKSUM: checksum}, indent=1, sort_keys=True) + "\n"


def _read_manifest(directory: Path, remedy: str) -> dict[str, Any]:
    path = directory / MANIFEST
    try:
        if path.exists() and not path.is_file():
            raise ArtefactError(f"{path}: no plain file; {remedy}")
        text = path.read_bytes().decode("utf-8")
        content = json.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        raise ArtefactError(f"{path}: missing, so {directory} is not a complete artefact; {remedy}") from None
    except OSError as error:  # it may be whole, so it is not to be made again
        raise PipelineError(f"{path}: can't be read ({error.strerror}); make it readable, or {remedy}") from None
    except ValueError:
        raise ArtefactError(f"{path}: damaged (not JSON); {remedy}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ArtefactError(f"{path}: not a manifest of format {FORMAT}; {remedy}")
    if not _is_whole(content, text):
        raise ArtefactError(f"{path}: damaged (its checksum differs from what it holds); {remedy}")
    return content


def _is_whole(content: dict[str, Any], text: str) -> bool:
    """Take a manifest's own checksum out of its content; return whether the text says what was written.

    It is compared without line breaks and the blanks behind them (strings hold no line break): Python writes JSON in
    one line three times as fast, and a run with nothing to do reads every manifest.
    """
    try:
        as_written = json.dumps(content, sort_keys=True, separators=(",", ": "), allow_nan=False)
        named = content.pop(_OWN_CHECKSUM, None)
        checksum = xxhash.xxh3_128_hexdigest(canonical_json(content).encode())
        return as_written == _LAYOUT.sub("", text) and named == checksum
    except ValueError:  # a number became NaN
        return False


def _content_digest(facts: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the digest of what an artefact's readers find: its facts, and the checksum of each file."""
    content = {"facts": facts, "files": {name: file["xxh3_128"] for name, file in files.items()}}
    return xxhash.xxh3_128_hexdigest(canonical_json(content).encode())


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
