"""Kind `table`: a CSV, TSV or parquet file that lists images with their labels or human votes.

The images lie in a folder or in a zip or tar, which has checksums of its own. The location of an image is its path in
that folder, or the archive's own location.
"""

from __future__ import annotations

import itertools
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline_lib.config.section import Name
from pipeline_lib.config.splitter import Splitter
from pipeline_lib.core.errors import PipelineError, did_you_mean, one_line, one_of
from pipeline_lib.core.recognise import misnamed
from pipeline_lib.datasets.archive_members import MemberOpener, digest_of_members, list_members
from pipeline_lib.datasets.base import ImageOpener, Index, numbered, resolve, safe_name
from pipeline_lib.datasets.files import FileOpener, Tree, digest_of_files, list_images
from pipeline_lib.datasets.spec import Checksum, DatasetOptions, FolderName
from pipeline_lib.datasets.splitter import assign
from pipeline_lib.datasets.text_table import ENCODING, SUFFIXES, checked_labels, require_votes, separator_of

if TYPE_CHECKING:
    import pandas as pd

_ARCHIVE_SUFFIXES = (".zip", ".tar")


class Options(DatasetOptions):
    """Images listed in a table."""

    kind: Literal["table"] = Field(description="A .csv, .tsv or .parquet with a row per image.")
    path: FolderName = Field(description="The table; a relative path starts at data_dir.")
    images: FolderName = Field(
        description="The folder, .zip or .tar of the images; a relative path starts at data_dir."
    )
    path_column: str = Field("path", description="Column with the path of each image inside `images`.")
    label_column: str | None = Field(None, description="Column with the class of each image; null = there are votes.")
    vote_columns: tuple[str, ...] | None = Field(
        None, min_length=1, description="Columns with the votes for each class; null = all that have no other use."
    )
    split_column: str | None = Field(None, description="Column with the split of each image; null = one split.")
    split_by: Splitter | None = Field(None, description="Shares of splits to divide the rows into; null = don't.")
    split: Name = Field("test", description="Name of the only split where `split_column` and `split_by` are null.")
    checksum: Checksum = "content"

    @field_validator("path")
    @classmethod
    def _table_format(cls, value: str) -> str:
        if not value.lower().endswith((*SUFFIXES, ".parquet")):
            raise ValueError("must end in .csv, .tsv or .parquet")
        return value

    @field_validator("split_by")
    @classmethod
    def _one_way_to_split(cls, value: Splitter | None, info: ValidationInfo) -> Splitter | None:
        if value is not None and info.data.get("split_column") is not None:
            raise ValueError("give either split_by or split_column, not both")
        return value

    @model_validator(mode="after")
    def _labels_or_votes(self) -> Options:
        if self.label_column is not None and self.vote_columns is not None:
            raise ValueError("give either label_column or vote_columns, not both")
        return self

    @property
    def has_votes(self) -> bool:
        """Whether the table has columns of votes instead of labels."""
        return self.label_column is None


def open_images(options: Options, data_dir: Path) -> ImageOpener:
    """Return the opener of the folder or archive."""
    images = resolve(data_dir, options.images)
    return MemberOpener(str(images)) if _is_archive(images) else FileOpener(str(images))


def build_index(options: Options, data_dir: Path) -> Index:
    """List the images in the order of the rows.

    The hard label of votes is the class with the most, the first of several.

    Raises
    ------
    PipelineError
        An image is not there, a label is missing, or votes are missing, negative or all zero; row and path are named.
    """
    table_path = resolve(data_dir, options.path)
    table = _read(table_path)
    paths = _text(table, options.path_column, table_path)
    if options.split_column is None:
        splits = [options.split] * len(paths)
    else:
        splits = _text(table, options.split_column, table_path)

    def where(row: int) -> str:
        return f"{table_path}: row {row + 1} (path '{paths[row]}')"

    names = [safe_name(path, where(row)) for row, path in enumerate(paths)]
    locations, images_fingerprint = _locate(options, resolve(data_dir, options.images), names, where)
    if options.label_column is None:
        classes, label, votes = _votes(options, table, table_path, where)
    else:
        classes, label = _labels(_text(table, options.label_column, table_path), options.label_column, where)
        votes = None
    if options.split_by is not None:
        splits = assign([classes[position] for position in label], names, options.split_by, str(table_path))
    for row, split in enumerate(splits):
        if not split:
            raise PipelineError(f"{where(row)}: has no value in split column '{options.split_column}'; fill it in")
    for one, other in itertools.combinations(sorted(set(splits)), 2):
        if one.lower() == other.lower():
            raise PipelineError(f"{table_path}: splits '{one}' and '{other}' differ in case alone; write them alike")
    _warn_of_repetitions(locations, label, where)
    # Of the images alone: what the table says is in the index, and how it says it changes nothing.
    return Index(classes, splits, label, locations, images_fingerprint, votes)


def _warn_of_repetitions(locations: list[str], label: np.ndarray, where: Callable[[int], str]) -> None:
    """Print that images are in several rows, if any are, and which is the first."""
    first = {location: row for row, location in reversed(list(enumerate(locations)))}
    again = [row for row, location in enumerate(locations) if first[location] != row]
    if again:
        before = first[locations[again[0]]]
        labels = "the same label" if label[before] == label[again[0]] else "another label"
        print(
            f"WARNING: {where(again[0])}: this image is in row {before + 1} already, with {labels} ({len(again):,} "
            "such rows); in one split, each is the nearest neighbour of the other",
            file=sys.stderr,
        )


def watched_files(options: Options, data_dir: Path) -> list[Path | Tree]:
    """Return the table, and the archive or all images of the folder."""
    images = resolve(data_dir, options.images)
    return [resolve(data_dir, options.path), images if _is_archive(images) else Tree(images)]


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() in _ARCHIVE_SUFFIXES and not path.is_dir()


def _read(path: Path) -> pd.DataFrame:
    """Read a table; text tables as strings throughout, so that a class '007' or 'NA' stays what it is."""
    import pandas as pd

    if (wrong := misnamed(path)) is not None:
        raise PipelineError(f"{path}: {wrong}")
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path, dtype_backend="pyarrow")
        separator = separator_of(path)
        text: dict[str, Any] = {"sep": separator, "dtype": str, "na_filter": False, "encoding": ENCODING}
        header = pd.read_csv(path, header=None, nrows=1, **text).iloc[0].tolist()
        if twice := [name for name in header if name and header.count(name) > 1]:
            raise PipelineError(f"{path}: has several columns '{twice[0]}'; delete or rename all but one")
        return pd.read_csv(path, index_col=False, **text)
    except FileNotFoundError:
        raise PipelineError(f"{path}: no such table; check 'path' and data_dir") from None
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: can't be read as a table ({one_line(error)}); save it as UTF-8") from None
    except (OSError, ValueError) as error:  # pandas' and Arrow's own parser errors are ValueErrors
        raise PipelineError(f"{path}: can't be read as a table ({one_line(error)})") from None


def _column(table: pd.DataFrame, name: str, path: Path) -> pd.Series:
    if name not in table.columns:
        raise PipelineError(
            f"{path}: has no column '{name}'; it has {one_of(table.columns)}{did_you_mean(name, table.columns)}; "
            "the options path_column and label_column name them (of fit, --label-column)"
        )
    return table[name]


def _text(table: pd.DataFrame, name: str, path: Path) -> list[str]:
    """Return a column as strings without surrounding blanks, an empty one where there is no value."""
    return _column(table, name, path).astype("string").fillna("").str.strip().tolist()


def _locate(options: Options, images: Path, names: list[str], where: Callable[[int], str]) -> tuple[list[str], str]:
    """Return the location of each image and the fingerprint of all of them."""
    is_archive, members = _is_archive(images), {}
    if is_archive:
        members = {member.name: member for member in list_members(images) if not member.is_folder}
        absent = {name for name in names if name not in members}
    else:
        absent = {name for name in names if not os.path.isfile(f"{images}/{name}")}  # noqa: PTH113 (faster than a Path)
    if absent:
        names = _as_stored(names, absent, members if is_archive or not images.is_dir() else list_images(images, "")[0])
    for row, name in enumerate(names):
        if name in absent:
            raise PipelineError(f"{where(row)}: no such image in {images}; check the path column and 'images'")
    if is_archive:
        return [members[name].location for name in names], digest_of_members(members.values())
    return names, digest_of_files(images, names, options.checksum)


def _as_stored(names: list[str], absent: set[str], stored: Iterable[str]) -> list[str]:
    """Return names as they are stored: systems write an accent as part of its letter (NFC) or behind it (NFD)."""
    by_normal = {unicodedata.normalize("NFC", name): name for name in stored}
    return [by_normal.get(unicodedata.normalize("NFC", name), name) if name in absent else name for name in names]


def _labels(values: list[str], column: str, where: Callable[[int], str]) -> tuple[list[str], np.ndarray]:
    """Return the classes, whole numbers in their order and others by name, and each label, int64 [n]."""
    values = checked_labels(values, where, f" in column '{column}'")
    return numbered(unicodedata.normalize("NFC", value) for value in values)


def _votes(
    options: Options, table: pd.DataFrame, path: Path, where: Callable[[int], str]
) -> tuple[list[str], np.ndarray, list[dict[int, float]]]:
    """Return the classes in the order of the columns, each label, int64 [n], and the votes above zero per image."""
    import pandas as pd

    used = (options.path_column, options.split_column)
    classes = list(options.vote_columns or [name for name in table.columns if name not in used])
    if not classes:
        raise PipelineError(f"{path}: has neither vote columns nor a label column; set 'label_column'")
    counts = np.empty((len(table), len(classes)), np.float64)
    for position, name in enumerate(classes):
        column = pd.to_numeric(_column(table, name, path), errors="coerce")
        counts[:, position] = column.to_numpy(np.float64, na_value=np.nan)
    require_votes(
        counts,
        where,
        of_class=lambda position: f"in column '{classes[position]}'",
        hint="name the columns with votes in 'vote_columns', or the one with classes in 'label_column'",
        without="delete the row",
        shown=lambda row, position: str(table[classes[position]].iloc[row]),
    )
    votes: list[dict[int, float]] = [{} for _ in range(len(counts))]
    for row, position in np.argwhere(counts > 0).tolist():
        votes[row][position] = float(counts[row, position])
    return classes, counts.argmax(axis=1).astype(np.int64), votes
