"""Arrays from the files that people have: .npy, .npz, .csv, .tsv, .parquet, .hdf5. Nothing in a file is run as code."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.core.errors import PipelineError, did_you_mean, one_line
from pipeline_lib.core.recognise import misnamed, require_no_pipe
from pipeline_lib.datasets.text_table import ENCODING, SUFFIXES, separator_of

_HDF5 = (".hdf5", ".h5")
FORMATS = (".npy", ".npz", *SUFFIXES, ".parquet", *_HDF5)


@dataclass(frozen=True)
class Array:
    """What a file holds.

    source: as the user wrote it, for messages. path: the file. values: [n] or [n, m]; memory-mapped from .npy.
    names: of the m columns, where the file names them.
    """

    source: str
    path: Path
    values: np.ndarray
    names: tuple[str, ...] | None


def read_array(source: str, as_text: bool = False) -> Array:
    """Read the array that `source` names: FILE, FILE.npz:KEY (.hdf5 and .h5 likewise, in groups too: test/embed), or
    FILE.csv:COLUMN[,COLUMN...] (.tsv and .parquet likewise).

    as_text: take the cells of a CSV file as text, whatever they look like (labels).
    Raises `PipelineError` naming the file for one that is missing, damaged, of another format, or holds Python objects.
    """
    path, selection = _split(source)
    require_no_pipe(path)
    if not path.is_file():
        raise PipelineError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}")
    if (wrong := misnamed(path)) is not None:
        raise PipelineError(f"{path}: {wrong}")
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise PipelineError(f"{path}: can't read '{suffix}' files; use one of {', '.join(FORMATS)}")
    try:
        if suffix == ".npy":
            values, names = _npy(path, selection), None
        elif suffix == ".npz":
            values, names = _npz(path, selection)
        elif suffix in SUFFIXES:
            values, names = _csv(path, selection, as_text)
        elif suffix in _HDF5:
            values, names = _hdf5(path, selection)
        else:
            values, names = _parquet(path, selection)
    except (ValueError, EOFError, zipfile.BadZipFile, pd.errors.ParserError, pa.ArrowException) as error:
        reason = one_line(error)
        if isinstance(error, UnicodeDecodeError):
            reason = f"{reason}; save it as UTF-8"
        if "Python objects" in reason or "allow_pickle" in reason:
            reason = "it holds Python objects, which could run code; save plain numbers or text"
        raise PipelineError(f"{path}: can't be read as {suffix}: {reason}") from error
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2) or values.dtype.kind not in "biufUS":
        raise PipelineError(
            f"{source}: has shape {list(values.shape)} and type {values.dtype}; needs numbers or text in rows"
        )
    if len(values) == 0 or (values.ndim == 2 and values.shape[1] == 0):
        raise PipelineError(f"{source}: is empty (shape {list(values.shape)}); needs one row per image")
    if not values.dtype.isnative:  # as other machines write it; pandas reads no other than this one's
        values = values.astype(values.dtype.newbyteorder("="))
    return Array(source, path, values, names)


def _split(source: str) -> tuple[Path, str | None]:
    """Return the file and what follows its last colon; a colon may also belong to the file's name."""
    if Path(source).exists() or ":" not in source:
        return Path(source), None
    path, _, selection = source.rpartition(":")
    return Path(path), selection


def _npy(path: Path, selection: str | None) -> np.ndarray:
    if selection is not None:
        raise PipelineError(f"{path}: holds one array, so ':{selection}' selects nothing; leave it out")
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(values, np.ndarray):
        raise PipelineError(f"{path}: holds several arrays, as a .npz does; rename it to .npz")
    return values


def _npz(path: Path, selection: str | None) -> tuple[np.ndarray, tuple[str, ...] | None]:
    arrays = np.load(path, allow_pickle=False)
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise PipelineError(f"{path}: holds one array, as a .npy does; rename it to .npy")
    with arrays:
        key = _key(path, arrays.files, selection)
        values = arrays[key]
    return values, (key,) if values.ndim == 1 and selection is not None else None


def _hdf5(path: Path, selection: str | None) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Read an array of a file, such as `embed` or `label` of a cache of the reference code, or `test/embed`."""
    try:
        with h5py.File(path, "r") as file:
            found: list[str] = []
            file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
            key = _key(path, found, selection and selection.strip("/"))
            is_text = h5py.check_string_dtype(file[key].dtype) is not None
            values = np.asarray(file[key].asstr()[()]).astype(str) if is_text else file[key][()]
    except OSError as error:
        raise PipelineError(f"{path}: not a readable HDF5 file ({error})") from None
    return values, (key,) if values.ndim == 1 and selection is not None else None


def _key(path: Path, available: list[str], selection: str | None) -> str:
    """Return the array to read; a file with a single one needs no selection."""
    if selection is None and len(available) != 1:
        raise PipelineError(f"{path}: holds {len(available)} arrays ({', '.join(available)}); choose one: {path}:KEY")
    key = available[0] if selection is None else selection
    if key not in available:
        raise PipelineError(
            f"{path}: holds no array '{key}'; it has {', '.join(available)}{did_you_mean(key, available)}"
        )
    return key


def _csv(path: Path, selection: str | None, as_text: bool) -> tuple[np.ndarray, tuple[str, ...] | None]:
    separator = separator_of(path)
    lines = pd.read_csv(
        path, sep=separator, header=None, nrows=1000, dtype=str, keep_default_na=False, encoding=ENCODING
    ).fillna("")
    header, *below = lines.to_numpy().tolist()
    # A file of bare numbers has no names.
    has_names = not all(_is_number(name.replace(",", ".") if separator == ";" else name) for name in header)
    numbered = [str(number) for number in range(len(header))]
    # pandas writes numbers above columns without names; above whole numbers they may as well be a row.
    has_numbers = header == numbered and below != [] and not all(re.fullmatch(r"-?\d+", cell) for cell in below[0])
    if not has_names:
        header = numbered
    chosen = _chosen(path, header, selection)
    if "" in chosen:
        raise PipelineError(
            f"{path}: column {header.index('')} has no name, as the index that pandas writes; "
            f"write the file with index=False, or choose columns: {path}:COLUMN,COLUMN"
        )

    if not has_names and separator == "," and len(header) > 1:
        if any(re.fullmatch(r"0\d+", cell) for row in lines.to_numpy().tolist() for cell in row[1:]):
            raise PipelineError(
                f"{path}: its numbers seem to have decimal commas, with commas between them too; write decimal points, "
                "or semicolons between columns"
            )

    def read(decimal: str) -> pd.DataFrame:
        table: pd.DataFrame = pd.read_csv(
            path,
            sep=separator,
            decimal=decimal,
            encoding=ENCODING,
            header=0 if has_names or has_numbers else None,
            names=header,
            usecols=[header.index(name) for name in chosen],
            dtype=str if as_text else None,
            keep_default_na=not as_text,
        )
        return table[chosen]

    table = read(".")
    if separator == ";" and not as_text and any(kind.kind not in "biuf" for kind in table.dtypes):
        table = read(",")  # as in the countries that separate fields by semicolons
    if as_text:
        return table.to_numpy(dtype=str), tuple(chosen) if has_names else None
    for name in chosen:
        if len(table) and table[name].dtype.kind not in "biuf":
            texts = [text.replace(",", ".", 1) if separator == ";" else text for text in map(str, table[name])]
            row = next((row for row, text in enumerate(texts) if not _is_number(text)), 0)
            raise PipelineError(f"{path}: column '{name}' must hold numbers, but row {row} is '{table[name][row]}'")
    return table.to_numpy(None if len(table) else np.float64), tuple(chosen) if has_names else None


def _parquet(path: Path, selection: str | None) -> tuple[np.ndarray, tuple[str, ...]]:
    file = pq.ParquetFile(path)
    available = file.schema_arrow.names
    index = json.loads((file.schema_arrow.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
    if selection is None:
        available = [name for name in available if name not in index] or available
    chosen = _chosen(path, available, selection)
    table = file.read(columns=chosen)
    if len(chosen) == 1 and _is_list(table.schema.field(chosen[0]).type):
        return _vectors(path, chosen[0], table[chosen[0]].combine_chunks()), tuple(chosen)
    columns = []
    for name in chosen:
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if column.null_count and (is_text or not pa.types.is_floating(column.type)):
            row = int(np.flatnonzero(column.is_null().to_numpy())[0])
            raise PipelineError(f"{path}: column '{name}' has no value in row {row}; fill it or leave the row out")
        columns.append(column.to_numpy().astype(str) if is_text else column.to_numpy())
    return np.column_stack(columns), tuple(chosen)


def _vectors(path: Path, name: str, column: pa.Array) -> np.ndarray:
    """Return a column of equally long lists as [n, d]."""
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    if column.null_count or len(lengths) == 0 or (lengths != lengths[0]).any():
        raise PipelineError(f"{path}: the lists in column '{name}' must all have the same length")
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(lengths), int(lengths[0]))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _chosen(path: Path, available: list[str], selection: str | None) -> list[str]:
    if selection is None:
        return available
    chosen = [selection] if selection in available else selection.split(",")
    for name in chosen:
        if name not in available:
            raise PipelineError(
                f"{path}: has no column '{name}'; it has {', '.join(available)}{did_you_mean(name, available)}"
            )
    if len(set(chosen)) < len(chosen):
        raise PipelineError(f"{path}: '{selection}' names a column twice")
    return chosen


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
