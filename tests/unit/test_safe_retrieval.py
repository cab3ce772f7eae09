"""Safe retrieval against loops over images, with duplicates, ties and everything nearby removed."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.evaluation import safe_retrieval
from pipeline_lib.evaluation.metric_rows import COLUMNS, read_metric_rows
from pipeline_lib.retrieval.restricted import nearest_kept
from pipeline_lib.retrieval.signals import combine
from pipeline_lib.stages.arguments import read_spec
from pipeline_lib.tables.summary import EvaluationSet
from tests.jobs import run

SHARES = [0.0, 0.1, 0.29, 0.5]
SEEDS = [4, 2]
SET = {"backbone": "small", "dataset": "known", "split": "test"}
UPSTREAM, DOWNSTREAM = EvaluationSet("known", "test"), [EvaluationSet("unseen", "test")]


def similarity_of(features: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair, float64; each pair's sum on its own, so equal rows have equal similarities."""
    wide = features.astype(np.float64)
    norm = np.sqrt((wide * wide).sum(axis=1))
    norms = norm[:, None] * norm
    return (wide[:, None] * wide).sum(axis=2) / np.where(norms > 0, norms, 1.0)


def nearest_by_loop(similarity: np.ndarray, kept: np.ndarray) -> np.ndarray:
    best = np.full(len(similarity), -1)
    for q in range(len(similarity)):
        for g in np.flatnonzero(kept):
            if g != q and (best[q] < 0 or similarity[q, g] > similarity[q, best[q]]):
                best[q] = g
    return best


def duplicated_features(rng: np.random.Generator, rows: int, distinct: int) -> np.ndarray:
    vectors = rng.normal(size=(distinct, 5)).astype(np.float16)
    vectors[0] = 0
    return vectors[rng.integers(0, distinct, rows)]


@pytest.mark.parametrize(("length", "block_rows"), [(64, 2048), (2, 7), (1, 64), (5, 3)])
@pytest.mark.parametrize(("rows", "distinct"), [(40, 6), (60, 55), (25, 1), (90, 40)])
def test_nearest_kept_equals_a_loop(rows: int, distinct: int, length: int, block_rows: int) -> None:
    rng = np.random.default_rng(rows)
    features = duplicated_features(rng, rows, distinct)
    similarity = similarity_of(features)
    removed_at = rng.integers(1, 5, (3, rows))
    removed_at[:, rng.permutation(rows)[:3]] = 4
    neighbour = nearest_by_loop(similarity, np.ones(rows, dtype=bool))
    found = nearest_kept(lambda a, b: features[a:b], neighbour, removed_at, 4, length, block_rows)
    assert found.shape == (3, 4, rows)
    for removal in range(3):
        for level in range(4):
            expected = nearest_by_loop(similarity, removed_at[removal] > level)
            np.testing.assert_array_equal(found[removal, level], expected)


def test_nearest_kept_finds_the_one_that_is_left_far_away() -> None:
    """All of a tight cluster but the query's are removed: no short list holds the answer."""
    rng = np.random.default_rng(0)
    features = np.concatenate([10 + rng.normal(size=(300, 4)), rng.normal(size=(40, 4))]).astype(np.float16)
    removed_at = np.concatenate([np.ones(300, dtype=int), np.full(40, 2)])[None]
    similarity = similarity_of(features)
    neighbour = nearest_by_loop(similarity, np.ones(340, dtype=bool))
    found = nearest_kept(lambda a, b: features[a:b], neighbour, removed_at, 2, 8)
    np.testing.assert_array_equal(found[0, 0], neighbour)
    np.testing.assert_array_equal(found[0, 1], nearest_by_loop(similarity, removed_at[0] > 1))


def test_rows_of_one_direction_tie_although_rounding_differs() -> None:
    rng = np.random.default_rng(1)
    direction = rng.integers(0, 4, 60)
    features = (rng.normal(size=(4, 50))[direction] * rng.integers(1, 1000, (60, 1))).astype(np.float64)
    removed_at = rng.integers(1, 3, (1, 60))
    neighbour = np.array([min(i for i in range(60) if direction[i] == direction[q] and i != q) for q in range(60)])
    found = nearest_kept(lambda a, b: features[a:b], neighbour, removed_at, 2, 4)
    kept = removed_at[0] > 1
    expected = [min(i for i in range(60) if direction[i] == direction[q] and kept[i] and i != q) for q in range(60)]
    np.testing.assert_array_equal(found[0, 1], expected)


def test_an_almost_empty_database_is_refused() -> None:
    with pytest.raises(PipelineError, match="of 3 images 1 are left"):
        nearest_kept(lambda a, b: np.ones((3, 2))[a:b], np.array([1, 0, 0]), np.array([[1, 1, 2]]), 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=60))
def test_removal_levels_are_nested_and_take_the_largest(images: list[tuple[int, int]]) -> None:
    group, uncertainty = np.array(images).T
    shares = [k / 20 for k in range(11)]
    level = safe_retrieval.removal_level(uncertainty.astype(np.float32), group, shares)
    for place, share in enumerate(shares):
        removed = level <= place
        for each in np.unique(group):
            mine = np.flatnonzero(group == each)
            # Rank by loop: an image stands behind all of larger u, and behind later ones of equal u.
            ahead = [sum((uncertainty[j], j) > (uncertainty[i], i) for j in mine) for i in mine]
            count = round(share * 20) * len(mine) // 20
            np.testing.assert_array_equal(removed[mine], np.array(ahead) < count)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_removal_depends_on_the_order_of_u_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    uncertainty, group = rng.integers(1, 9, 50).astype(np.float64), rng.integers(0, 4, 50)
    level = safe_retrieval.removal_level(uncertainty, group, SHARES)
    np.testing.assert_array_equal(level, safe_retrieval.removal_level(np.exp(uncertainty), 7 - group, SHARES))


def test_a_share_that_rounds_down_in_binary_counts_whole() -> None:
    level = safe_retrieval.removal_level(np.arange(100.0), np.zeros(100, int), [0.0, 0.29])
    assert (level == 1).sum() == 29  # 0.29 * 100 is 28.999999999999996


@pytest.mark.parametrize(
    ("shares", "table_share"),
    [([], 0), ([0.1, 0.2], 0.1), ([0, 0.2, 0.1], 0.1), ([0, 0.1, 0.1], 0.1), ([0, 1.0], 0), ([0, 0.2], 0.1)],
)
def test_senseless_shares_are_refused(shares: list[float], table_share: float, tmp_path: Path) -> None:
    spec = {**SET, "variant": "paper", "seeds": SEEDS, "is_upstream": True}
    with pytest.raises(PipelineError, match=r"spec of safe_retrieval: .*share"):
        run("safe_retrieval", {**spec, "left_out": {"shares": shares, "table_share": table_share}}, tmp_path)


class World:
    """One set with duplicates, its artefacts, and the artefact under test, made through the command line's stage."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        rng = np.random.default_rng(5)
        n = 130
        self.label = rng.integers(0, 5, n)
        self.label[7] = 9  # alone in its class
        centre = rng.normal(size=(10, 4))
        self.features = (centre[self.label] + rng.normal(size=(n, 4))).astype(np.float16)
        self.features[100:] = self.features[:30]
        self.uncertainty = {seed: rng.integers(0, 40, n).astype(np.float32) for seed in SEEDS}
        self.similarity = similarity_of(self.features)
        self.neighbour = nearest_by_loop(self.similarity, np.ones(n, dtype=bool))
        self.sample_id = np.arange(n) * 3
        left_out = {"shares": SHARES, "table_share": 0.29}
        self.spec = {**SET, "variant": "paper", "seeds": SEEDS, "is_upstream": True, "left_out": left_out}
        with artefacts.writing(root / "eval" / "cache", "cache", {}):
            pass
        with artefacts.writing(root / "neighbours", "neighbours", SET) as draft:
            found = {
                "sample_id": self.sample_id,
                "neighbour_sample_id": self.sample_id[self.neighbour],
                "similarity": np.zeros(n),
            }
            pq.write_table(pa.table(found), draft.path / "neighbours.parquet")
        self.distance = 1 - np.sort(self.similarity, axis=1)[:, -2].round(2)
        of_baselines = {"sample_id": self.sample_id, "label": self.label, "knn_distance": self.distance}
        self.write_scores("baselines", SET, of_baselines)
        heads = {f"uncertainty_seed{seed}": values for seed, values in self.uncertainty.items()}
        self.write_scores("scores", {**SET, "variant": "paper"}, {"sample_id": self.sample_id, **heads})
        world = self

        class ArrayCache:
            def __init__(self, view_dir: Path) -> None:
                self.view_dir, self.rows = view_dir, n
                self.manifest = artefacts.read(view_dir / "cache", "cache")

            def read(self, array: str, epoch: int, start: int, stop: int) -> np.ndarray:
                assert (array, epoch) == ("embedding", 0)
                return world.features[start:stop]

            def read_all(self, array: str) -> np.ndarray:
                return {"sample_id": world.sample_id, "label": world.label}[array]

        monkeypatch.setattr("pipeline_lib.features.cache.FeatureCache", ArrayCache)
        self.run("out")

    def write_scores(self, folder: str, spec: dict, columns: dict) -> None:
        with artefacts.writing(self.root / folder, "evaluate_heads", spec) as draft:
            pq.write_table(pa.table(columns), draft.path / "scores.parquet")

    def run(self, out: str) -> None:
        inputs = {name: self.root / name for name in ("baselines", "scores", "neighbours")}
        run("safe_retrieval", self.spec, self.root / out, features=self.root / "eval" / "cache", **inputs)

    def errors(self, seed: int, kind: str, signal: str = "uncertainty") -> np.ndarray:
        """Return the error per query share and database share, by loops."""
        group = {"per_class": self.label, "global": 0 * self.label, "per_neighbour_class": self.label[self.neighbour]}
        group, u = group[kind], self.uncertainty[seed]
        u = {"uncertainty": u, "distance": self.distance, "both": combine(self.distance, u)}[signal]
        kept = []
        for share in SHARES:
            here = np.ones(len(u), dtype=bool)
            for each in set(group):
                mine = sorted(np.flatnonzero(group == each), key=lambda i: (-u[i], -i))
                here[mine[: round(share * 100) * len(mine) // 100]] = False
            kept.append(here)
        error = np.empty((len(SHARES), len(SHARES)))
        for column, database in enumerate(kept):
            wrong = self.label[nearest_by_loop(self.similarity, database)] != self.label
            error[:, column] = [wrong[queries].mean() for queries in kept]
        return error


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield World(tmp_path_factory.mktemp("world"), monkeypatch)


def test_errors_equal_loops_for_every_kind_seed_and_share(world: World) -> None:
    curves = pd.read_csv(world.root / "out" / "curves.csv")
    surface = pd.read_csv(world.root / "out" / "surface.csv")
    assert len(curves) == len(SEEDS) * 9 * len(SHARES)
    for seed in SEEDS:
        for kind, signal in itertools.product(safe_retrieval.KINDS, safe_retrieval.SIGNALS):
            expected = world.errors(seed, kind, signal)
            mine = curves[(curves["seed"] == seed) & (curves["kind"] == kind) & (curves["signal"] == signal)]
            assert mine["share"].tolist() == SHARES
            np.testing.assert_allclose(mine["clean_queries"], expected[:, 0], rtol=1e-12)
            np.testing.assert_allclose(mine["clean_database"], expected[0], rtol=1e-12)
            np.testing.assert_allclose(mine["clean_both"], np.diag(expected), rtol=1e-12)
        mine = surface[surface["seed"] == seed].pivot(index="query_share", columns="database_share", values="error")
        np.testing.assert_allclose(mine.to_numpy(), world.errors(seed, "global"), rtol=1e-12)
    assert surface.groupby("query_share")["n"].first().tolist() == [130, 117, 93, 65]


def test_metrics_are_those_at_the_share_of_the_table(world: World) -> None:
    rows = read_metric_rows(world.root / "out" / "metrics.csv")
    assert list(rows.columns) == COLUMNS
    value = rows.set_index(["seed", "metric"])["value"]
    n = rows.set_index(["seed", "metric"])["n"]
    full = np.mean(world.label[world.neighbour] != world.label)
    for seed in SEEDS:
        assert value[seed, "error_1nn_full"] == pytest.approx(full)
        assert n[seed, "error_1nn_full"] == 130
        for kind, signal in itertools.product(safe_retrieval.KINDS, safe_retrieval.SIGNALS):
            ending = safe_retrieval.KINDS[kind] + safe_retrieval.SIGNALS[signal]
            error = world.errors(seed, kind, signal)
            assert value[seed, f"error_1nn_clean_queries{ending}"] == pytest.approx(error[2, 0])
            assert value[seed, f"error_1nn_clean_database{ending}"] == pytest.approx(error[2, 2])
        assert n[seed, "error_1nn_clean_database_global"] == 130 - 37
    assert len(rows) == len(SEEDS) * 19


def test_the_same_work_gives_the_same_digest(world: World) -> None:
    world.run("again")
    digests = {artefacts.read(world.root / name, "safe_retrieval").digest for name in ("out", "again")}
    assert len(digests) == 1
    assert read_spec(str(world.root / "out" / "manifest.json"))["is_upstream"] is True


def test_a_set_that_is_too_small_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(world.spec, "left_out", {"shares": [0, 0.995], "table_share": 0.995})
    with pytest.raises(PipelineError, match=r"^known/test: of 130 images .* left .*take the set out of the run"):
        world.run("faulty")


def test_faults_are_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(world.spec, "seeds", [4, 3])
    with pytest.raises(ArtefactError, match="no column 'uncertainty_seed3'"):
        world.run("faulty")
    monkeypatch.setitem(world.spec, "seeds", SEEDS)
    monkeypatch.setitem(world.spec, "dataset", "other")
    with pytest.raises(ArtefactError, match=r"baselines.*'dataset' is"):
        world.run("faulty")
    monkeypatch.setitem(world.spec, "dataset", "known")
    monkeypatch.setattr(world, "sample_id", world.sample_id[::-1])
    with pytest.raises(ArtefactError, match="another order"):
        world.run("faulty")
    assert not (world.root / "faulty").exists()


@pytest.mark.slow
def test_no_torch_is_loaded() -> None:
    code = "import sys, pipeline_lib.evaluation.safe_retrieval; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
