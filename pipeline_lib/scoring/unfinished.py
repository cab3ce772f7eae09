"""The finished part of a scoring under way, from which the same command goes on after a kill.

Beside the table that is to be written lies a hidden folder with one Parquet file per finished chunk of images, and
beside the array of representations a hidden array, whose rows are filled as they are computed. A chunk's file is
written last: where it is, its rows are.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.core.artefacts import writing_file
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.locks import held

_SPEC = "spec.json"


class Unfinished:
    """The finished chunks of one scoring; a context manager that keeps other processes from the same work.

    Attributes
    ----------
    done : int
        How many chunks are finished, from the first on.

    Parameters
    ----------
    out
        The table that is to be written.
    spec
        What decides the result, as plain JSON values; what was done for another spec is thrown away.
    representations
        The array that is to be written, `.npy`, or None.
    """

    _lock: IO[str]

    def __init__(self, out: Path, spec: Mapping[str, Any], representations: Path | None) -> None:
        self._folder = _hidden(out)
        self._representations = representations
        self._array: np.memmap | None = None
        self._spec = dict(spec)
        self.done = 0

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self._folder / "lock", "w")
        # Not flock, whose lock would be inherited by the processes that decode, which outlive a kill by seconds.
        if not held(self._lock):
            self._lock.close()
            raise PipelineError(f"{self._folder}: another run is writing there; wait for it, or choose another --out")
        if not self._can_go_on():
            for path in self._folder.glob("*.*"):
                path.unlink()
            with writing_file(self._folder / _SPEC) as file:
                json.dump(self._spec, file, indent=1, sort_keys=True)
        while self._chunk(self.done).exists():
            self.done += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()

    def keep(self, table: pa.Table, rows: range, representations: np.ndarray, total: int) -> None:
        """Keep the next chunk.

        Parameters
        ----------
        table
            One row per image.
        rows
            The positions of its images among all `total`.
        representations
            float32 [len(rows), d], NaN in the rows of images that can't be decoded.
        """
        if self._representations is not None:
            if self._array is None:
                self._array = self._open_array(self._representations, (total, representations.shape[1]))
            self._array[rows.start : rows.stop] = representations
            self._array.flush()
        with writing_file(self._chunk(self.done), "wb") as file:
            pq.write_table(table, file)
        self.done += 1

    def table(self) -> pa.Table:
        """Return the rows of all chunks kept so far."""
        return pa.concat_tables(pq.read_table(self._chunk(number)) for number in range(self.done))

    def finish(self) -> None:
        """Publish the representations and remove the chunks."""
        if self._representations is not None:
            os.replace(_hidden(self._representations), self._representations)
        shutil.rmtree(self._folder)

    def discard(self) -> None:
        """Remove everything."""
        if self._representations is not None:
            _hidden(self._representations).unlink(missing_ok=True)
        shutil.rmtree(self._folder)

    def _can_go_on(self) -> bool:
        """Return whether what is there was done for the same spec, and its representations are there too."""
        try:
            known = json.loads((self._folder / _SPEC).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return False
        # After a kill between the last two steps of `finish`, the array is gone.
        has_array = (
            self._representations is None or _hidden(self._representations).exists() or not self._chunk(0).exists()
        )
        return known == self._spec and has_array

    def _open_array(self, target: Path, shape: tuple[int, int]) -> np.memmap:
        path = _hidden(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.done:
            return np.lib.format.open_memmap(path, mode="r+")
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)

    def _chunk(self, number: int) -> Path:
        return self._folder / f"{number:06d}.parquet"


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.unfinished")
