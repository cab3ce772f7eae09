"""The arrays of one block on disk, in Zarr v3 or HDF5, behind one interface.

Arrays are written whole and uncompressed (float16 representations barely compress, and reading stays at the
speed of memory). Their first axis is the epoch, the second the image, so that the rows of an epoch that are
read together lie together; `sample_id` and `label` have the image axis alone, `epoch` the epoch axis alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.errors import ArtefactError

FILE_NAMES = {"zarr": "arrays.zarr", "hdf5": "arrays.h5"}


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

    with h5py.File(path, "w", libver="latest") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, chunks=_chunks(values.shape, chunk_rows), track_times=False)


class BlockArrays:
    """The arrays of a block, open for reading, whichever format they are in; `names` lists them."""

    def __init__(self, directory: Path) -> None:
        directory = Path(directory)
        if (path := directory / FILE_NAMES["zarr"]).is_dir():
            import zarr

            self._handle: Any = zarr.open_group(store=path, mode="r")
            self._arrays: dict[str, Any] = dict(self._handle.arrays())
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
            from zarr.core.buffer.cpu import NDBuffer

            array.get_basic_selection(index, out=NDBuffer.from_numpy_array(out))


def _chunks(shape: tuple[int, ...], chunk_rows: int) -> tuple[int, ...]:
    if len(shape) == 1:
        return (max(1, shape[0]),)
    return (1, max(1, min(chunk_rows, shape[1])), *shape[2:])
