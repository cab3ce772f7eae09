"""The nearest neighbours that a user gets are those of the definition, however the work is cut."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline_lib.config.evaluation import Neighbours
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.retrieval.cosine import Nearest
from pipeline_lib.retrieval.search import nearest_neighbours


def search(values: np.ndarray, block_rows: int = 7, backend: str = "torch") -> Nearest:
    options = Neighbours(backend=backend, device="cpu", block_rows=block_rows)
    return nearest_neighbours(lambda start, stop: values[start:stop], len(values), options)


def exact_reference(values: np.ndarray) -> list[int]:
    """Compare signed squared cosines as fractions: no rounding anywhere."""
    rows = [[Fraction(float(value)) for value in row] for row in values]
    nearest = []
    for position, query in enumerate(rows):
        best, best_index = None, -1
        for index, row in enumerate(rows):
            if index == position:
                continue
            dot = sum(a * b for a, b in zip(query, row, strict=True))
            norms = sum(a * a for a in query) * sum(b * b for b in row)
            cosine = Fraction(0) if norms == 0 else dot * abs(dot) / norms
            if best is None or cosine > best:
                best, best_index = cosine, index
        nearest.append(best_index)
    return nearest


def float_reference(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the whole similarity matrix in float64; meant for values without exact ties."""
    wide = values.astype(np.float64)
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    return similarity.argmax(axis=1), similarity.max(axis=1)


# With entries -1, 0, 1 and at most seven of them, cosines are equal in float64 exactly where they are equal.
small_vectors = hnp.arrays(
    np.float16,
    st.tuples(st.integers(2, 24), st.integers(1, 7)),
    elements=st.sampled_from([-1.0, 0.0, 1.0]),
)


@settings(max_examples=80, deadline=None)
@given(values=small_vectors, block_rows=st.integers(1, 25), backend=st.sampled_from(["torch", "faiss"]))
def test_ties_duplicates_and_zero_vectors_resolve_as_defined(values: np.ndarray, block_rows: int, backend: str) -> None:
    assert search(values, block_rows, backend).index.tolist() == exact_reference(values)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(2, 70),
    dim=st.integers(2, 40),
    dtype=st.sampled_from([np.float16, np.float32]),
    block_rows=st.integers(1, 80),
)
def test_random_vectors_agree_with_the_whole_similarity_matrix(
    seed: int, rows: int, dim: int, dtype: type, block_rows: int
) -> None:
    values = np.random.default_rng(seed).normal(size=(rows, dim)).astype(dtype)
    index, similarity = float_reference(values)
    found = search(values, block_rows)
    np.testing.assert_allclose(found.similarity, similarity, atol=1e-12, rtol=0)
    # In two dimensions neighbours of a vector can be closer to each other than float64 resolves.
    differs = found.index != index
    assert np.all(similarity[differs] - found.similarity[differs] < 1e-14)


def crowded(rng: np.random.Generator, rows: int = 150, dim: int = 24) -> np.ndarray:
    """Nearly equal vectors, copies, scaled copies and zero vectors in random order."""
    centre = rng.normal(size=dim)
    values = centre + 1e-3 * rng.normal(size=(rows, dim))
    values[rng.integers(0, rows, 30)] = values[0]
    values[rng.integers(0, rows, 10)] = 2 * values[1]
    values[rng.integers(0, rows, 10)] = 0
    return values.astype(np.float32)


@pytest.mark.parametrize("backend", ["torch", "faiss"])
@pytest.mark.parametrize("block_rows", [20, 63, 64, 65, 100, 149, 1000])
def test_result_is_bit_identical_for_every_block_size(block_rows: int, backend: str) -> None:
    values = crowded(np.random.default_rng(0))
    whole, found = search(values, len(values)), search(values, block_rows, backend)
    np.testing.assert_array_equal(found.index, whole.index)
    np.testing.assert_array_equal(found.similarity, whole.similarity)


def test_copies_find_the_lowest_other_copy() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(200, 16)).astype(np.float16)
    copies = np.sort(rng.choice(200, 150, replace=False))
    values[copies] = values[copies[0]]
    found = search(values, 33)
    assert found.index[copies[0]] == copies[1]
    assert (found.index[copies[1:]] == copies[0]).all()
    np.testing.assert_allclose(found.similarity[copies], 1, atol=1e-15)


def test_massive_duplication_costs_no_more_than_distinct_rows() -> None:
    values = np.zeros((60_000, 8), np.float16)
    values[::2] = 1
    reads = []

    def read(start: int, stop: int) -> np.ndarray:
        reads.append(start)
        return values[start:stop]

    found = nearest_neighbours(read, len(values), Neighbours(device="cpu", block_rows=1000))
    assert found.index[:4].tolist() == [2, 0, 0, 0]
    assert (found.index[4:] == 0).all()
    assert len(reads) <= 61 * 2  # a pass over all blocks, and the one block that holds all that is searched


def test_nearly_collapsed_vectors_are_told_apart() -> None:
    rng = np.random.default_rng(2)
    values = (rng.normal(size=32) + 1e-5 * rng.normal(size=(400, 32))).astype(np.float32)
    index, similarity = float_reference(values)
    found = search(values, 150)
    np.testing.assert_allclose(found.similarity, similarity, atol=1e-14, rtol=0)
    gap = np.sort(float_similarities(values), axis=1)
    is_clear = gap[:, -1] - gap[:, -2] > 1e-14
    assert is_clear.mean() > 0.9
    np.testing.assert_array_equal(found.index[is_clear], index[is_clear])


def float_similarities(values: np.ndarray) -> np.ndarray:
    wide = values.astype(np.float64)
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    return similarity


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-20, 1e18, 1e30, 1e37])
def test_length_of_vectors_does_not_matter(scale: float) -> None:
    rng = np.random.default_rng(3)
    # Small integers survive even among subnormal numbers.
    values = (rng.integers(1, 9, size=(60, 6)) * np.float64(scale)).astype(np.float32)
    mixed = np.where(np.arange(60)[:, None] % 2 == 0, values, rng.integers(1, 9, size=(60, 6))).astype(np.float32)
    for table in (values, mixed):
        np.testing.assert_allclose(search(table).similarity, float_similarities(table).max(axis=1), atol=1e-12)


def test_faiss_finds_what_torch_finds_when_many_rows_are_almost_equally_near() -> None:
    rng = np.random.default_rng(4)
    values = np.repeat(rng.normal(size=(10, 12)), 40, axis=0)
    values += 1e-6 * rng.normal(size=values.shape)
    values = values.astype(np.float32)
    torch_found, faiss_found = search(values, 100), search(values, 100, "faiss")
    np.testing.assert_array_equal(torch_found.index, faiss_found.index)
    np.testing.assert_array_equal(torch_found.similarity, faiss_found.similarity)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_their_row(bad: float) -> None:
    values = np.ones((50, 4), np.float32)
    values[37, 2] = bad
    with pytest.raises(PipelineError, match="row 37 "):
        search(values)


def test_a_single_image_is_refused() -> None:
    with pytest.raises(PipelineError, match="at least 2 images"):
        search(np.ones((1, 4), np.float32))


def test_progress_adds_up_to_the_number_of_rows() -> None:
    values = np.random.default_rng(5).integers(0, 2, size=(500, 3)).astype(np.float16)
    done: list[int] = []
    options = Neighbours(device="cpu", block_rows=64)
    nearest_neighbours(lambda start, stop: values[start:stop], 500, options, done.append)
    assert sum(done) == 500


PEAK = r"""
import pathlib, re, sys
import numpy as np, torch
from pipeline_lib.config.evaluation import Neighbours
from pipeline_lib.retrieval.search import nearest_neighbours
torch.set_num_threads(1)
def read(start, stop):
    return np.fromfile(sys.argv[1], np.float16, (stop - start) * 8192, offset=start * 8192 * 2).reshape(-1, 8192)
for rows in (500, 2000):
    nearest_neighbours(read, rows, Neighbours(device="cpu", block_rows=125))
    # Not ru_maxrss: a child inherits that of the process that started it.
    print(re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.bin"
    np.random.default_rng(0).integers(0, 0x3C00, 2000 * 8192, np.uint16).tofile(path)  # as float16: from 0 to 1
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], stdout=subprocess.PIPE, text=True, check=True)
    few, all_of_them = map(int, done.stdout.split())
    # Of four times as many rows nothing stays: in memory at once, their values alone would take more than this.
    assert all_of_them - few < 0.5 * path.stat().st_size / 1024
