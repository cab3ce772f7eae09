"""Kind `webdataset`: samples in the tar shards of the WebDataset format, read at random without unpacking.

The files of a sample have one key, their path up to the first dot of the file name, and lie beside each other in the
shard: `0001.jpg` and `0001.cls`, or `0001.jpg` and `0001.json`. Their suffix in lower case says what they are; files
with other suffixes, and those without any, are left out. The same key in another shard is another sample.

The label is the whole number in `.cls`, or what `.json` has under `label_key`: a whole number or a class name. With a
list of class names a number is a position in it; else the classes are the numbers that occur, or the sorted names.

The location of an image is `shard:offset:size:name`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from pipeline_lib.config.section import Name
from pipeline_lib.core.errors import PipelineError, did_you_mean
from pipeline_lib.datasets.archive_members import FolderOpener, Member, check_format, list_members, refuse_gzip
from pipeline_lib.datasets.base import ImageOpener, Index, numbered, resolve, safe_name
from pipeline_lib.datasets.files import digest_of_entries
from pipeline_lib.datasets.spec import DatasetOptions, FolderName

_IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "ppm")
_KEY_AND_SUFFIX = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)


class Options(DatasetOptions):
    """Samples in WebDataset shards."""

    kind: Literal["webdataset"] = Field(description="WebDataset shards: .tar files with an image and a label per key.")
    path: FolderName = Field(description="The folder of the shards; a relative path starts at data_dir.")
    splits: dict[Name, FolderName] = Field(
        min_length=1,
        description="The shards of each split, with braces for ranges: {test: 'test-{000000..000009}.tar'}.",
    )
    label_key: str | None = Field(None, description="Where the label is in a sample's .json; null = it is the .cls.")
    classes: FolderName | None = Field(
        None, description="A text file in `path` with a class name per line; null = classes are named by their labels."
    )

    @field_validator("splits")
    @classmethod
    def _shards(cls, value: dict[str, str]) -> dict[str, str]:
        for pattern in value.values():
            if re.match(r"[\w+]+://|pipe:", pattern):
                raise ValueError(f"'{pattern}' is not on this machine; download the shards and name them below 'path'")
            if not check_format(pattern).lower().endswith(".tar"):
                raise ValueError(f"'{pattern}' must name .tar shards")
        return value


@dataclass(frozen=True)
class _Sample:
    """A sample with its image and the member that holds its label; `where` names it in messages."""

    where: str
    image: Member
    label: Member


def open_images(options: Options, data_dir: Path) -> ImageOpener:
    """Return the opener of the shards' images."""
    return FolderOpener(str(resolve(data_dir, options.path)))


def build_index(options: Options, data_dir: Path) -> Index:
    """List the samples in the order of the splits' names, their shards and their members.

    Raises
    ------
    PipelineError
        A shard is missing, compressed or cut short, a sample has no or two images or labels, a key occurs twice in a
        shard, or a label is no class; shard and key are named.
    """
    root = resolve(data_dir, options.path)
    names = _read_class_names(root / options.classes) if options.classes else None
    position = None if names is None else {name: number for number, name in enumerate(names)}
    splits, locations, entries = [], [], []
    labels: list[int | str] = []
    for split, shard in _shards_of_splits(options):
        if not (root / shard).is_file():
            raise PipelineError(f"{root / shard}: no such shard; check 'path', 'splits' and data_dir")
        refuse_gzip(root / shard, "decompress it with gunzip")
        samples = list(_samples(root / shard, options.label_key))
        with open(root / shard, "rb") as content:
            for sample in samples:
                content.seek(_offset(sample.label))
                labels.append(_parse(content.read(sample.label.size), options.label_key, position, sample.where))
                splits.append(split)
                locations.append(f"{shard}:{sample.image.location}")
                entries.append((shard, sample.image.name, sample.image.checksum, sample.label.checksum))
    if names is not None:
        label = np.array(labels, np.int64)
    elif len({type(label) for label in labels}) > 1:
        raise PipelineError(f"{root}: some labels are numbers and some are names; list the names in 'classes'")
    else:
        names, label = numbered(labels)
    digest = digest_of_entries([*((name,) for name in names), *entries])
    return Index(classes=names, split=splits, label=label, location=locations, fingerprint=digest)


def watched_files(options: Options, data_dir: Path) -> list[Path]:
    """Return the shards and the list of classes."""
    root = resolve(data_dir, options.path)
    shards = [shard for _, shard in _shards_of_splits(options)]
    return [root / name for name in ([options.classes, *shards] if options.classes else shards)]


def _shards_of_splits(options: Options) -> list[tuple[str, str]]:
    """Return each split's name with each of its shards; raises `PipelineError` for a shard that is named twice."""
    try:
        from braceexpand import braceexpand
    except ModuleNotFoundError:
        raise PipelineError(
            "kind 'webdataset' needs the package 'braceexpand', which is not installed; pip install braceexpand"
        ) from None
    found: dict[str, str] = {}
    for split, pattern in sorted(options.splits.items()):
        try:
            shards = [safe_name(shard, f"splits: '{pattern}'") for shard in braceexpand(pattern)]
        except ValueError:
            raise PipelineError(
                f"splits: '{pattern}' has a brace that is not closed; write ranges as {{000000..000009}}"
            ) from None
        for shard in shards:
            if shard in found:
                raise PipelineError(
                    f"splits: shard '{shard}' is in split '{found[shard]}' and again in '{split}'; name it once"
                )
            found[shard] = split
    return [(split, shard) for shard, split in found.items()]


def _samples(shard: Path, label_key: str | None) -> Iterator[_Sample]:
    """Yield the samples of a shard in its order."""
    members = sorted((member for member in list_members(shard) if not member.is_folder), key=_offset)
    named = [(match, member) for member in members if (match := _KEY_AND_SUFFIX.fullmatch(member.name))]
    seen: set[str] = set()
    for key, group in itertools.groupby(named, key=lambda found: found[0][1]):
        where = f"{shard}: sample '{key}'"
        files = [(match[2].lower(), member) for match, member in group]
        if key in seen:
            raise PipelineError(f"{where} occurs twice, or its files are not beside each other; repack the shard")
        seen.add(key)
        yield _Sample(
            where,
            image=_only(files, _IMAGE_SUFFIXES, "image", where),
            label=_only(files, ("cls",) if label_key is None else ("json",), "label", where),
        )
    if not seen:
        raise PipelineError(f"{shard}: holds no samples (such as 0001.jpg with 0001.cls); check 'splits'")


def _only(files: list[tuple[str, Member]], suffixes: tuple[str, ...], what: str, where: str) -> Member:
    found = [member for suffix, member in files if suffix in suffixes]
    if len(found) != 1:
        named = f" ({', '.join(member.name for member in found)})" if found else ""
        raise PipelineError(
            f"{where} has {len(found)} {what}s{named}, but must have one, with the suffix {' or '.join(suffixes)}; "
            f"it has {', '.join(suffix for suffix, _ in files)}"
            + ("; see label_key" if what == "label" else "; repack the shard")
            + (" (a key ends at the first dot of a file's name)" if any("." in suffix for suffix, _ in files) else "")
        )
    return found[0]


def _parse(content: bytes, label_key: str | None, position: dict[str, int] | None, where: str) -> int | str:
    """Return the label in a .cls or .json file; where the class names are given, as a position among them."""
    try:
        label = int(content) if label_key is None else json.loads(content)[label_key]
    except (ValueError, KeyError, TypeError):
        wanted = "a .cls file with a whole number" if label_key is None else f"a .json file with '{label_key}'"
        raise PipelineError(f"{where} must have {wanted}, but it holds {content[:80]!r}; see label_key") from None
    if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
        raise PipelineError(f"{where}: its label {label!r} must be a whole number or a class name; repack the shard")
    if position is None:
        return label
    if isinstance(label, str):
        label = position.get(label, label)
    if isinstance(label, str) or not 0 <= label < len(position):
        raise PipelineError(
            f"{where}: its label {label!r} is none of the {len(position)} classes (numbered from 0); correct 'classes'"
            f"{did_you_mean(str(label), position)}"
        )
    return label


def _read_class_names(path: Path) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path}: the list of classes can't be read ({error}); check 'classes'") from None
    if "" in names or len(set(names)) < len(names) or not names:
        raise PipelineError(f"{path}: must have one class name per line, none of them empty or twice; correct it")
    return names


def _offset(member: Member) -> int:
    """Return where a tar member's content starts: its location is `offset:size:name`."""
    return int(member.location.split(":", 1)[0])
