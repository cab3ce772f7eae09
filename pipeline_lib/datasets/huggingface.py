"""Kind `huggingface`: a dataset that the library `datasets` loads, from the Hugging Face Hub or a local folder.

A local folder is what `save_to_disk` made (a dataset saved without splits is the split `train`), or holds files that
the library loads, such as parquet. Everything else is downloaded unless it is in `cache_dir` already. No code of a
dataset is ever run: the library refuses datasets that come as scripts.

What is indexed are the rows of Arrow files: those of the saved folder, or those that the library writes into
`cache_dir`. Later stages read these files alone, without the library and without the network. The location of an image
is `file:row:feature`, with the file's path below the saved folder or `cache_dir`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from pipeline_lib.config.section import Name
from pipeline_lib.core.errors import PipelineError, did_you_mean, one_line
from pipeline_lib.datasets.arrow_rows import RowOpener, arrow_files, content, pictures
from pipeline_lib.datasets.base import ImageOpener, Index, numbered, resolve
from pipeline_lib.datasets.files import digest_of_entries, digest_of_files
from pipeline_lib.datasets.spec import Checksum, DatasetOptions, FolderName

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

_COMMIT = re.compile(r"[0-9a-f]{40}")
_IMAGE_TYPES = ("Image", "struct with bytes", "binary", "large_binary")
_LABEL_TYPES = ("ClassLabel", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "string", "large_string")
_SAVED_SPLITS, _SAVED_ALONE = "dataset_dict.json", "state.json"


class Options(DatasetOptions):
    """A dataset of the Hugging Face library `datasets`."""

    kind: Literal["huggingface"] = Field(description="A dataset of the Hugging Face Hub, or saved by its library.")
    name: FolderName = Field(
        description="A folder (from save_to_disk, or of parquet files; a relative path starts at data_dir), else a Hub "
        "id such as uoft-cs/cifar10."
    )
    config: str | None = Field(None, description="The configuration of a dataset that has several.")
    revision: str | None = Field(
        None, description="Commit, tag or branch on the Hub; a commit makes runs repeatable. null = the newest."
    )
    splits: dict[Name, str] | None = Field(
        None,
        min_length=1,
        description="Split strings of the library: {train: train, test: 'test[:50%]'}; null = the dataset's own.",
    )
    image_key: str | None = Field(None, description="The feature with the images; null = the only Image feature.")
    label_key: str | None = Field(None, description="The feature with the classes; null = the only ClassLabel feature.")
    cache_dir: FolderName = Field(
        "huggingface", description="Where the library keeps its Arrow files; a relative path starts at data_dir."
    )
    checksum: Checksum = "content"


def open_images(options: Options, data_dir: Path) -> ImageOpener:
    """Return the opener of the rows."""
    return RowOpener(str(_root(options, data_dir)))


def build_index(options: Options, data_dir: Path) -> Index:
    """List the rows of each split, in the order of the splits' names, without decoding an image.

    Raises
    ------
    PipelineError
        The dataset can't be loaded, its features can't be told apart, a split string doesn't fit, a row is in two
        splits, or a row has no image or label.
    """
    found = _load(options, data_dir)
    first = next(iter(found.values()))
    for split, dataset in found.items():
        if dataset.features != first.features:
            raise PipelineError(f"{options.name}: split '{split}' has other features than the first; save it again")
    image = _feature(first.features, "image_key", _IMAGE_TYPES, options)
    label = _feature(first.features, "label_key", _LABEL_TYPES, options)

    splits, locations, values, entries = [], [], [], []
    for split, part, rows in _rows_of_splits(options, found):
        files = list(arrow_files(found[part], _root(options, data_dir)))
        values += _labels(found[part], label, rows, f"{options.name}: split '{part}'")
        for file, row, picture in pictures(files, image, rows):
            splits.append(split)
            locations.append(f"{file}:{row}:{image}")
            entries.append((split, _checksum(picture, options, f"{file}, row {row}")))
    classes, labels = _classes(first.features[label], values)
    digest = digest_of_entries([*((name,) for name in classes), *entries])
    return Index(
        classes=classes,
        split=splits,
        label=labels,
        location=locations,
        fingerprint=f"{digest} {hashlib.sha256(labels.tobytes()).hexdigest()}",
    )


def watched_files(options: Options, data_dir: Path) -> list[Path]:
    """Return the local folder's files, if it is one; what was downloaded once stays as it is."""
    folder = resolve(data_dir, options.name)
    return [folder / name for name in _names_in(folder)] if folder.is_dir() else []


def _is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (_SAVED_SPLITS, _SAVED_ALONE))


def _root(options: Options, data_dir: Path) -> Path:
    """Return the folder that locations start at."""
    folder = resolve(data_dir, options.name)
    return folder if _is_saved(folder) else resolve(data_dir, options.cache_dir)


def _names_in(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if not name.startswith(".") and "/." not in name)


def _load(options: Options, data_dir: Path) -> dict[str, datasets.Dataset]:
    """Return all splits of the dataset, mapped into memory."""
    try:
        import datasets
    except ModuleNotFoundError:
        raise PipelineError(
            "kind 'huggingface' needs the package 'datasets', which is not installed; pip install datasets"
        ) from None
    folder, cache = resolve(data_dir, options.name), resolve(data_dir, options.cache_dir)
    if folder.is_dir() and options.revision is not None:
        raise PipelineError(f"{folder}: a folder has no revision '{options.revision}'; leave it out")
    if _is_saved(folder) and options.config is not None:
        raise PipelineError(f"{folder}: a saved dataset has no configuration '{options.config}'; leave it out")
    try:
        if _is_saved(folder):
            found = datasets.load_from_disk(str(folder))
            return found if isinstance(found, dict) else {"train": found}
        if not folder.is_dir():
            found = datasets.load_dataset(options.name, options.config, revision=options.revision, cache_dir=str(cache))
            _check_revision(options, found)
            return found
        builder = datasets.load_dataset_builder(str(folder), options.config, cache_dir=str(cache))
        # The library's own name for the output has times and paths in it; ours is the same on every machine.
        digest = digest_of_files(folder, _names_in(folder), options.checksum)
        builder.download_and_prepare(output_dir=str(cache / f"{folder.name}-{digest[:32]}" / builder.config.name))
        return builder.as_dataset()
    except PipelineError:
        raise
    except Exception as error:  # the library lets through whatever its readers and HTTP clients raise
        reason = f"can't be loaded ({one_line(error.__cause__ or error)})"
        if folder.is_dir():
            again = "" if _is_saved(folder) else f", delete {cache}/{folder.name}-*"
            raise PipelineError(f"{folder}: {reason}; check 'config'{again}, or save the dataset again") from None
        raise PipelineError(
            f"'{options.name}' (no such folder in {data_dir}, so a Hub id): {reason}; check 'name', 'config' and "
            f"'revision', or load it once into {cache} where there is a network"
        ) from None


def _check_revision(options: Options, found: Mapping[str, datasets.Dataset]) -> None:
    """Without a network the library takes what its cache has, of whatever revision."""
    if options.revision is None or not _COMMIT.fullmatch(options.revision):
        return
    for dataset in found.values():
        for file in dataset.cache_files:
            if options.revision not in Path(file["filename"]).parts:
                raise PipelineError(
                    f"'{options.name}': revision {options.revision} can't be downloaded, and the cache has another "
                    f"({Path(file['filename']).parent.name}); connect to the network or change 'revision'"
                )


def _type_of(feature: Any) -> str:
    if isinstance(feature, dict):
        return "struct with bytes" if "bytes" in feature else "struct"
    return feature.dtype if type(feature).__name__ == "Value" else type(feature).__name__


def _feature(features: Mapping[str, Any], option: str, types: tuple[str, ...], options: Options) -> str:
    """Return the name of the feature that an option names, else of the only one of the first of these types."""
    type_of = {name: _type_of(feature) for name, feature in features.items()}
    listed = f"set {option} to one of: {', '.join(f'{name} ({of})' for name, of in type_of.items())}"
    chosen = getattr(options, option)
    if chosen is None:
        found = [name for name, of in type_of.items() if of == types[0]]
        if len(found) != 1:
            raise PipelineError(f"{options.name}: has {len(found)} {types[0]} features instead of one; {listed}")
        return found[0]
    if chosen not in features:
        raise PipelineError(f"{options.name}: has no feature '{chosen}'; {listed}{did_you_mean(chosen, features)}")
    if type_of[chosen] not in types:
        raise PipelineError(f"{options.name}: feature '{chosen}' is none of {', '.join(types)}; {listed}")
    return chosen


def _rows_of_splits(options: Options, found: Mapping[str, datasets.Dataset]) -> Iterator[tuple[str, str, range]]:
    """Yield each split's name with a split of the source and its rows there; a split may have several such parts."""
    from datasets import ReadInstruction

    size = {part: dataset.num_rows for part, dataset in found.items()}
    taken = {part: np.zeros(rows, bool) for part, rows in size.items()}
    for split, text in sorted((options.splits or {part: part for part in found}).items()):
        try:
            pieces = ReadInstruction.from_spec(text).to_absolute(size)
        except (ValueError, AssertionError) as error:
            raise PipelineError(
                f"{options.name}: split '{split}' is '{text}', which can't be read ({one_line(error)}); "
                f"the dataset has {', '.join(f'{part} ({rows} rows)' for part, rows in size.items())}"
            ) from None
        for piece in pieces:
            rows = range(piece.from_, piece.to)
            if not rows:
                raise PipelineError(f"{options.name}: split '{split}' is '{text}', which has no rows; widen it")
            if taken[piece.splitname][rows.start : rows.stop].any():
                raise PipelineError(
                    f"{options.name}: split '{split}' ('{text}') has rows of another split; divide them"
                )
            taken[piece.splitname][rows.start : rows.stop] = True
            yield split, piece.splitname, rows


def _checksum(picture: pa.Scalar, options: Options, where: str) -> str:
    found, path = content(picture)
    if found is not None:
        return str(found.size) if options.checksum == "size" else hashlib.sha256(found).hexdigest()
    if path is None:
        raise PipelineError(f"{options.name}: {where} has no image; leave it out and save the dataset again")
    return digest_of_files(Path(path).parent, [Path(path).name], options.checksum)


def _labels(dataset: datasets.Dataset, feature: str, rows: range, where: str) -> list[int | str]:
    """Return the labels of some rows; raises `PipelineError` for a row without one."""
    values = dataset.data.column(feature).slice(rows.start, len(rows)).to_pylist()
    names = getattr(dataset.features[feature], "names", None)
    for row, value in zip(rows, values, strict=True):
        if value is None or (names is not None and not 0 <= value < len(names)):
            raise PipelineError(
                f"{where}, row {row}: '{feature}' is {value}, which is no class; public test splits often have no "
                "labels: take another split"
            )
    return values


def _classes(feature: Any, values: list[int | str]) -> tuple[list[str], np.ndarray]:
    """Return the class names and each label's position in them: the feature's own names, else all values, sorted."""
    if type(feature).__name__ == "ClassLabel":
        return list(feature.names), np.array(values, np.int64)
    return numbered(values)
