"""Caches in the reference code's format are read like ours."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline_lib.errors import ArtefactError, PipelineError
from pipeline_lib.features.reference_cache import ReferenceCache
from pipeline_lib.retrieval.neighbours import nearest_neighbours


def write(path: Path, embed: np.ndarray, label: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["embed"], file["label"] = embed, label
    return path


@pytest.fixture
def embed() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)


def test_rows_and_labels_are_those_of_the_file(tmp_path: Path, embed: np.ndarray) -> None:
    label = np.arange(30)[:, None] % 3
    cache = ReferenceCache(write(tmp_path / "dataset.hdf5", embed, label))
    assert (cache.rows, cache.epochs, cache.dim) == (30, 1, 8)
    assert np.array_equal(cache.read("embedding", 0, 4, 9), embed[4:9])
    assert cache.read("label", 0, 1, 5).tolist() == [1, 2, 0, 1]
    assert cache.read("sample_id", 0, 28, 30).tolist() == [28, 29]
    found = nearest_neighbours(
        lambda start, stop: cache.read("embedding", 0, start, stop), 30, backend="torch", device="cpu", block_rows=7
    )
    unit = embed / np.linalg.norm(embed, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -2)
    assert found.index.tolist() == similarity.argmax(axis=1).tolist()


def test_interrupted_and_foreign_files_are_refused(tmp_path: Path, embed: np.ndarray) -> None:
    embed[20:] = 0
    with pytest.raises(ArtefactError, match="interrupted"):
        ReferenceCache(write(tmp_path / "cut.hdf5", embed, np.zeros((30, 1))))
    with pytest.raises(ArtefactError, match="30 embeddings, but 29 labels"):
        ReferenceCache(write(tmp_path / "short.hdf5", embed, np.zeros((29, 1))))
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["x"] = [1]
    with pytest.raises(ArtefactError, match="needs the arrays embed"):
        ReferenceCache(tmp_path / "other.hdf5")
    (tmp_path / "text.hdf5").write_text("no")
    with pytest.raises(ArtefactError, match="not a readable HDF5 file"):
        ReferenceCache(tmp_path / "text.hdf5")
    with pytest.raises(PipelineError, match="no such file"):
        ReferenceCache(tmp_path / "none.hdf5")
