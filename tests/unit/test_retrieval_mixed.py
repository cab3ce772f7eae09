"""Neighbours in a mix of two sets against a whole similarity matrix, however the mix is read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline_lib.config.evaluation import Mix, Neighbours
from pipeline_lib.core.errors import ArtefactError
from pipeline_lib.core.jobs import Job
from pipeline_lib.retrieval import mixed as mixed_module
from pipeline_lib.retrieval.mixed import choose_mix, concatenation, mixed_neighbours
from pipeline_lib.retrieval.search import nearest_neighbours
from pipeline_lib.retrieval.store import read_neighbours, write_neighbours
from pipeline_lib.stages import neighbours

SEARCH = Neighbours(device="cpu", block_rows=8)


class ArrayCache:
    """The interface of `FeatureCache` over arrays in memory; `most_rows` is the longest read so far."""

    def __init__(self, rows: int, seed: int, backbone: str = "one") -> None:
        rng = np.random.default_rng(seed)
        self.rows, self.dim, self.view_dir, self.most_rows = rows, 6, Path(f"features{seed}"), 0
        self.manifest = SimpleNamespace(facts={"backbone": backbone})
        self.arrays = {
            "embedding": rng.normal(size=(rows, 6)).astype(np.float16),
            "label": rng.integers(0, 4, rows),
            "sample_id": np.sort(rng.choice(10 * rows, rows, replace=False)),
        }

    def read(self, array: str, epoch: int, start: int, stop: int) -> np.ndarray:
        assert 0 <= start < stop <= self.rows
        self.most_rows = max(self.most_rows, stop - start)
        return self.arrays[array][start:stop]

    def read_all(self, array: str) -> np.ndarray:
        return self.arrays[array]


def caches(upstream_rows: int, downstream_rows: int) -> Any:
    return ArrayCache(upstream_rows, 0), ArrayCache(downstream_rows, 1)


def test_mix_has_equally_many_of_both_and_never_more_than_asked_for() -> None:
    for sizes, images, expected in [((90, 40), 50, 40), ((30, 40), 50, 30), ((90, 80), 50, 50), ((50, 50), 50, 50)]:
        chosen = choose_mix(*sizes, images, seed=3)
        for rows, size in zip(chosen, sizes, strict=True):
            assert len(rows) == len(set(rows.tolist())) == expected
            assert (np.diff(rows) > 0).all() and rows[0] >= 0 and rows[-1] < size
        again = choose_mix(*sizes, images, seed=3)
        assert [rows.tolist() for rows in again] == [rows.tolist() for rows in chosen]
    assert choose_mix(90, 40, 50, seed=3)[0].tolist() != choose_mix(90, 40, 50, seed=4)[0].tolist()


def test_concatenation_serves_any_range_and_reads_short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed_module, "_PIECE_ROWS", 8)
    both = caches(90, 40)
    chosen = choose_mix(90, 40, 25, seed=0)
    whole = np.concatenate([cache.arrays["embedding"][rows] for cache, rows in zip(both, chosen, strict=True)])
    read = concatenation(both, chosen)
    for start in range(50):
        for stop in range(start + 1, 51):
            np.testing.assert_array_equal(read(start, stop), whole[start:stop])
    assert max(cache.most_rows for cache in both) <= 8


@pytest.mark.parametrize("sizes", [(90, 40), (30, 75)])
@pytest.mark.parametrize("block_rows", [7, 200])
def test_mixed_neighbours_equal_a_whole_similarity_matrix(sizes: tuple[int, int], block_rows: int) -> None:
    both = caches(*sizes)
    done: list[int] = []
    mixed = mixed_neighbours(
        *both, Mix(images=35, seed=2), SEARCH.model_copy(update={"block_rows": block_rows}), done.append
    )
    size = min(*sizes, 35)
    assert mixed.is_upstream.tolist() == [True] * size + [False] * size
    assert sum(done) == 2 * size
    rows = [
        int(np.flatnonzero(both[0 if is_upstream else 1].arrays["sample_id"] == sample_id)[0])
        for is_upstream, sample_id in zip(mixed.is_upstream, mixed.sample_id, strict=True)
    ]
    sources = [both[0 if is_upstream else 1].arrays for is_upstream in mixed.is_upstream]
    values = np.array([source["embedding"][row] for source, row in zip(sources, rows, strict=True)], np.float64)
    label = [(bool(up), source["label"][row]) for up, source, row in zip(mixed.is_upstream, sources, rows, strict=True)]
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    assert mixed.neighbour.tolist() == similarity.argmax(axis=1).tolist()
    assert mixed.correct.tolist() == [label[j] == label[i] for i, j in enumerate(mixed.neighbour)]
    # Some neighbours are of the other set, though of a label of the same number.
    crossing = mixed.is_upstream[mixed.neighbour] != mixed.is_upstream
    assert crossing.any() and not mixed.correct[crossing].any()


def test_caches_of_different_backbones_are_refused() -> None:
    other: Any = ArrayCache(20, 1, backbone="another")
    with pytest.raises(ArtefactError, match="features0 and features1: hold representations of different backbones"):
        mixed_neighbours(caches(20, 20)[0], other, Mix(images=5, seed=0), SEARCH)


def test_the_mix_comes_back_as_written(tmp_path: Path) -> None:
    upstream, cache = caches(30, 20)
    found = nearest_neighbours(lambda a, b: cache.arrays["embedding"][a:b], 20, SEARCH)
    mixed = mixed_neighbours(upstream, cache, Mix(images=10, seed=0), SEARCH)
    spec = neighbours.Spec(backbone="b", dataset="d", split="test", search=SEARCH)
    write_neighbours(Job("neighbours", spec, {}, tmp_path / "with"), found, cache, mixed)
    write_neighbours(Job("neighbours", spec, {}, tmp_path / "without"), found, cache)
    back = read_neighbours(tmp_path / "with").mixed
    assert back is not None
    for name, values in vars(mixed).items():
        np.testing.assert_array_equal(getattr(back, name), values)
        assert getattr(back, name).dtype == values.dtype
    assert read_neighbours(tmp_path / "without").mixed is None
