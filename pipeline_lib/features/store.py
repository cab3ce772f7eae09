"""The arrays of one block on disk, in Zarr v3 or HDF5, behind one interface.

Arrays are written whole and uncompressed (float16 representations barely compress, and reading stays at the
speed of memory). Their first axis is the epoch, the second the image, so that the rows of an epoch that are
read together lie together; `sample_id` and `label` have the image axis alone, `epoch` the epoch axis alone.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline_lib.core.errors import ArtefactError

FILE_NAMES = {"zarr": "arrays.zarr", "hdf5": "arrays.h5"}
ReadFile = Callable[[str, int, memoryview], None]
_DESCRIPTION = "zarr.json"
_HDF5_OVERHEAD_BYTES = 64 << 10


def write_arrays(directory: Path, storage: str, arrays: Mapping[str, np.ndarray], chunk_rows: int) -> None:
    """Write named arrays below `directory`; `storage` is "zarr" or "hdf5".

    chunk_rows: images per chunk; a chunk holds one epoch only, so reading an epoch touches no other.
    """
    path = Path(directory) / FILE_NAMES[storage]
    if storage == "zarr":
        import zarr

        group = zarr.create_group(store=path)
        for name, values in arrays.items():
            stored = group.create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                chunks=_chunks(values.shape, chunk_rows),
                compressors=None,
                filters=None,
                fill_value=0,
                config={"write_empty_chunks": True},
            )
            # One chunk at a time: of many at once, all that fail after the first would print a traceback each.
            for chunk in np.ndindex(*stored.cdata_shape):
                region = tuple(slice(i * size, (i + 1) * size) for i, size in zip(chunk, stored.chunks, strict=True))
                stored[region] = values[region]
        return
    import h5py

    _find_space(path, arrays, chunk_rows)
    with h5py.File(path, "w", libver="latest") as file:
        for name, values in arrays.items():
            # HDF5 has no chunks of nothing: of a block whose images are all unreadable, say.
            chunks = _chunks(values.shape, chunk_rows) if values.size else None
            file.create_dataset(name, data=values, chunks=chunks, track_times=False)


def _find_space(path: Path, arrays: Mapping[str, np.ndarray], chunk_rows: int) -> None:
    """Raise `OSError` where the disk, or the user's part of it, is too full for a file with these arrays.

    HDF5 itself ends the process with a segmentation fault when a write fails, and leaves what it had written.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    size = _HDF5_OVERHEAD_BYTES
    for values in arrays.values():
        whole = (
            -(-length // of) * of for length, of in zip(values.shape, _chunks(values.shape, chunk_rows), strict=True)
        )
        size += math.prod(whole) * values.itemsize
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


class _Stored(NamedTuple):
    """An array as it is stored: `locate` returns the file of a chunk, and where in it the values start."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    locate: Callable[[tuple[int, ...]], tuple[str, int]]


class BlockArrays:
    """The arrays of a block, open for reading, whichever format they are in.

    Both formats hold plain values, which are read straight from the files: zarr and h5py copy them once more, zarr
    takes half a second to import, and so the bytes of a file can be checked while they are read.

    read_file: fills a buffer from a position of a file, which is named relative to the folder.
    """

    def __init__(self, directory: Path, read_file: ReadFile | None = None) -> None:
        self._directory = Path(directory)
        self._read_file = read_file or functools.partial(_read_file, self._directory)
        self._describe: Callable[[str], _Stored | None]
        if (self._directory / FILE_NAMES["zarr"]).is_dir():
            self._describe = self._in_zarr
        elif (path := self._directory / FILE_NAMES["hdf5"]).is_file():
            from h5py import h5f

            self._describe = functools.partial(_in_hdf5, h5f.open(os.fsencode(path), h5f.ACC_RDONLY))
        else:
            raise FileNotFoundError(f"{directory}: holds neither {' nor '.join(FILE_NAMES.values())}")
        self._arrays: dict[str, _Stored] = {}

    def dtype(self, name: str) -> np.dtype:
        """Return the type of an array's values."""
        return self._array(name).dtype

    def read_into(self, name: str, index: tuple[Any, ...], out: np.ndarray) -> None:
        """Read `array[index]` straight into the contiguous array `out`.

        index: positions on the leading axes, along which a chunk is one wide, then a slice of rows.
        """
        stored = self._array(name)
        *leading, rows = index
        axis = len(leading)
        trailing = (0,) * (len(stored.shape) - axis - 1)
        row_bytes = math.prod(stored.shape[axis + 1 :]) * stored.dtype.itemsize
        target = out.reshape(-1).view(np.uint8).data
        row = rows.start
        while row < rows.stop:
            chunk, first = divmod(row, stored.chunks[axis])
            count = min(stored.chunks[axis] - first, rows.stop - row)
            file, offset = stored.locate((*leading, chunk, *trailing))
            start = (row - rows.start) * row_bytes
            self._read_file(file, offset + first * row_bytes, target[start : start + count * row_bytes])
            row += count

    def _array(self, name: str) -> _Stored:
        """Return how an array is stored, which is found out when it is first read."""
        if name not in self._arrays:
            stored = self._describe(name)
            if stored is None:
                raise ArtefactError(
                    f"{self._directory}: '{name}' is compressed or big-endian; blocks are written as plain values"
                )
            self._arrays[name] = stored
        return self._arrays[name]

    def _in_zarr(self, name: str) -> _Stored | None:
        """Return how an array is stored; None if not as plain values."""
        folder = f"{FILE_NAMES['zarr']}/{name}"
        description = f"{folder}/{_DESCRIPTION}"
        text = bytearray((self._directory / description).stat().st_size)
        self._read_file(description, 0, memoryview(text))
        found = json.loads(text)
        (codec, *others), little = found["codecs"], {"endian": "little"}
        if others or codec["name"] != "bytes" or codec.get("configuration", little) != little:
            return None

        def locate(chunk: tuple[int, ...]) -> tuple[str, int]:
            return "/".join((folder, "c", *map(str, chunk))), 0

        chunks = tuple(found["chunk_grid"]["configuration"]["chunk_shape"])
        return _Stored(tuple(found["shape"]), chunks, np.dtype(found["data_type"]), locate)


def _in_hdf5(file: Any, name: str) -> _Stored | None:
    """Return how an array is stored; None if not as plain values.

    By h5py's lower interface: opening a file and an array takes it 0.06 ms, the upper one 0.16.
    """
    from h5py import h5d

    dataset = h5d.open(file, name.encode())
    shape, dtype, layout = dataset.shape, dataset.dtype, dataset.get_create_plist()
    if layout.get_nfilters() or dtype.byteorder == ">":
        return None
    chunks = layout.get_chunk() if layout.get_layout() == h5d.CHUNKED else shape  # one of nothing has no chunks

    def locate(chunk: tuple[int, ...]) -> tuple[str, int]:
        first = tuple(position * size for position, size in zip(chunk, chunks, strict=True))
        return FILE_NAMES["hdf5"], dataset.get_chunk_info_by_coord(first).byte_offset

    return _Stored(shape, chunks, dtype, locate)


def _read_file(directory: Path, name: str, start: int, target: memoryview) -> None:
    """Fill a buffer from a position of a file; raises `ArtefactError` where the file ends before."""
    with open(directory / name, "rb", buffering=0) as file:
        file.seek(start)
        if file.readinto(target) != len(target):
            raise ArtefactError(f"{directory / name}: ends before byte {start + len(target)}")


def _chunks(shape: tuple[int, ...], chunk_rows: int) -> tuple[int, ...]:
    if len(shape) == 1:
        return (max(1, shape[0]),)
    return (1, max(1, min(chunk_rows, shape[1])), *shape[2:])
