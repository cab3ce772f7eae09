"""The arrays of one block on disk, in Zarr v3 or HDF5, behind one interface.

Arrays are written whole and uncompressed (float16 representations barely compress, and reading stays at the
speed of memory). Their first axis is the epoch, the second the image, so that the rows of an epoch that are
read together lie together; `sample_id` and `label` have the image axis alone, `epoch` the epoch axis alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.core.errors import ArtefactError

FILE_NAMES = {"zarr": "arrays.zarr", "hdf5": "arrays.h5"}
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


class BlockArrays:
    """The arrays of a block, open for reading, whichever format they are in; `names` lists them."""

    def __init__(self, directory: Path) -> None:
        directory = Path(directory)
        if (path := directory / FILE_NAMES["zarr"]).is_dir():
            import zarr

            self._path = path
            self._handle: Any = zarr.open_group(store=path, mode="r")
            self._arrays: dict[str, Any] = dict(self._handle.arrays())
            for name, array in self._arrays.items():
                if len(array.metadata.codecs) != 1 or array.dtype.byteorder == ">":
                    raise ArtefactError(
                        f"{path / name}: is compressed or big-endian; blocks are written as plain values"
                    )
        elif (path := directory / FILE_NAMES["hdf5"]).is_file():
            import h5py

            self._handle = h5py.File(path, "r")
            self._arrays = dict(self._handle.items())
        else:
            raise ArtefactError(f"{directory}: holds neither {' nor '.join(FILE_NAMES.values())}")
        self.names = tuple(self._arrays)

    def dtype(self, name: str) -> np.dtype:
        """Return the type of an array's values."""
        return self._arrays[name].dtype

    def read_into(self, name: str, index: tuple[Any, ...], out: np.ndarray) -> None:
        """Read `array[index]` straight into the contiguous array `out`."""
        array = self._arrays[name]
        if hasattr(array, "read_direct"):
            array.read_direct(out, source_sel=index)
        else:
            _read_chunk_files(self._path / name, array, index, out)


def _read_chunk_files(folder: Path, array: Any, index: tuple[Any, ...], out: np.ndarray) -> None:
    """Read rows of an uncompressed Zarr array straight from its chunk files, each of which holds plain values.

    zarr itself reads a whole chunk and copies it once more: half as fast, and much slower for a part of a chunk.
    index: positions on the leading axes, along which a chunk is one wide, then a slice of rows.
    """
    *leading, rows = index
    axis = len(leading)
    chunk_rows = array.chunks[axis]
    trailing = (0,) * (len(array.shape) - axis - 1)
    row_bytes = math.prod(array.shape[axis + 1 :]) * array.dtype.itemsize
    target = out.reshape(-1).view(np.uint8).data
    row = rows.start
    while row < rows.stop:
        chunk, first = divmod(row, chunk_rows)
        count = min(chunk_rows - first, rows.stop - row)
        key = array.metadata.encode_chunk_key((*leading, chunk, *trailing))
        start = (row - rows.start) * row_bytes
        piece = target[start : start + count * row_bytes]
        with open(folder / key, "rb", buffering=0) as file:
            file.seek(first * row_bytes)
            if file.readinto(piece) != len(piece):
                raise ArtefactError(f"{folder / key}: ends before row {first + count} of the chunk")
        row += count


def _chunks(shape: tuple[int, ...], chunk_rows: int) -> tuple[int, ...]:
    if len(shape) == 1:
        return (max(1, shape[0]),)
    return (1, max(1, min(chunk_rows, shape[1])), *shape[2:])
