"""The caches that the reference code writes: one HDF5 file with `embed` [n, d] and `label` [n, 1]."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from pipeline_lib.errors import ArtefactError, PipelineError


class ReferenceCache:
    """Rows of a reference cache, read like those of a `FeatureCache` with one epoch.

    Arrays: `embedding` (as stored, float32 in the reference, [n, d]), `label` int64 [n], and `sample_id` int64 [n], the
    position in the file. It has no checksums: an interrupted file looks finished, so rows of zeros at the end are
    refused.
    """

    epochs = 1
    arrays = ("embedding", "label", "sample_id")

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._file = h5py.File(path, "r")
        except FileNotFoundError:
            raise PipelineError(f"{path}: no such file") from None
        except OSError as error:
            raise ArtefactError(f"{path}: not a readable HDF5 file ({error})") from None
        for name, dimensions in (("embed", 2), ("label", 2)):
            if name not in self._file or self._file[name].ndim != dimensions:
                raise ArtefactError(
                    f"{path}: needs the arrays embed [n, d] and label [n, 1]; it has {list(self._file)}"
                )
        self.rows, self.dim = self._file["embed"].shape
        if len(self._file["label"]) != self.rows:
            raise ArtefactError(f"{path}: has {self.rows} embeddings, but {len(self._file['label'])} labels")
        if self.rows == 0 or not self._file["embed"][self.rows - 1].any():
            raise ArtefactError(f"{path}: its last row is empty, so writing it was interrupted; cache it again")

    def read(self, array: str, epoch: int, start: int, stop: int) -> np.ndarray:
        """Read rows [start, stop) of an array; `epoch` must be 0."""
        if array not in self.arrays:
            raise PipelineError(f"{self.path}: has no array '{array}'; it has {', '.join(self.arrays)}")
        if epoch != 0 or not 0 <= start <= stop <= self.rows:
            raise PipelineError(
                f"{self.path}: epoch {epoch}, rows {start} to {stop}; there is 1 epoch of {self.rows} rows"
            )
        if array == "sample_id":
            return np.arange(start, stop, dtype=np.int64)
        if array == "label":
            return self._file["label"][start:stop, 0].astype(np.int64)
        return self._file["embed"][start:stop]
