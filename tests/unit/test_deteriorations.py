"""Uncertainties of deteriorated images, against loops on small random worlds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.config.evaluation import Evaluation
from pipeline_lib.config.views import DrawnDeteriorations
from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.core.jobs import Job
from pipeline_lib.evaluation.deteriorations import deterioration_metrics, evaluate_deteriorations
from pipeline_lib.evaluation.metric_rows import COLUMNS, read_metric_rows
from pipeline_lib.evaluation.scores import write_evaluation
from pipeline_lib.evaluation.spec import DeteriorationsSpec, HeadsSpec
from pipeline_lib.heads.checkpoint import TrainedHead
from pipeline_lib.heads.numpy_head import score
from tests.unit.heads_world import stored

DIM, N, SEEDS = 5, 40, [2, 1]
# Severities out of order: an epoch is found by its draw, not by counting.
DRAWS = [
    {"kind": kind, "severity": severity, "strength": severity / 10}
    for kind, severity in (("blur", 2), ("blur", 1), ("blur", 3), ("zoom", 1), ("zoom", 2))
]
SET = {"backbone": "small", "dataset": "unseen", "split": "test"}
SPEC = {**SET, "variant": "paper", "seeds": SEEDS, "is_upstream": False, "draws": DRAWS}


class ArrayCache:
    """The interface of `FeatureCache` over an array [E, n, d] in memory."""

    def __init__(self, view_dir: Path, embedding: np.ndarray, sample_id: np.ndarray, draws: list[Any]) -> None:
        self.view_dir, self.embedding, self.sample_id = view_dir, embedding, sample_id
        self.epochs, self.rows, self.dim = embedding.shape
        view = DrawnDeteriorations.model_validate({"seed": 0, "draws": draws})
        self.spec = SimpleNamespace(**SET, view=view)

    def read(self, array: str, epoch: int, start: int, stop: int) -> np.ndarray:
        assert array == "embedding"
        return self.embedding[epoch, start:stop]

    def read_all(self, array: str) -> np.ndarray:
        assert array == "sample_id"
        return self.sample_id


class World:
    """A cache with one epoch per draw, two heads, and their scores of the clean images."""

    def __init__(self, root: Path) -> None:
        self.root = root
        rng = np.random.default_rng(0)
        self.embedding = rng.normal(size=(len(DRAWS), N, DIM)).astype(np.float16)
        self.clean = rng.normal(size=(N, DIM)).astype(np.float16)
        self.sample_id = np.delete(np.arange(N + 1), 7)
        self.cache = ArrayCache(root / "deteriorations", self.embedding, self.sample_id, DRAWS)
        self.weights: dict[int, dict[str, np.ndarray]] = {}
        self.heads = [root / f"seed{seed}" for seed in SEEDS]
        for seed in SEEDS:
            self.weights[seed] = {
                "layers.0.weight": rng.normal(size=(4, DIM)).astype(np.float32),
                "layers.0.bias": rng.normal(size=4).astype(np.float32),
                "layers.1.weight": rng.normal(size=(1, 4)).astype(np.float32),
                "layers.1.bias": rng.normal(size=1).astype(np.float32),
            }
            head = TrainedHead(seed, self.weights[seed], ({"episode": 1},))
            stored(root / f"seed{seed}", head, backbone="small", variant="paper")
        columns = {"sample_id": self.sample_id}
        columns |= {f"uncertainty_seed{seed}": score(self.weights[seed], self.clean) for seed in SEEDS}
        row = dict.fromkeys(COLUMNS, 1)
        options = Evaluation().model_dump(include={"bootstrap", "target_accuracies", "compat"})
        of_heads = HeadsSpec(**{key: SPEC[key] for key in SPEC if key != "draws"}, **options)
        write_evaluation(Job("evaluate_heads", of_heads, {}, root / "scores"), columns, [row])

    def evaluate(self, spec: dict[str, Any] = SPEC, out: Path | None = None, **replace: Any) -> Path:
        heads, cache = replace.get("heads", self.heads), replace.get("cache", self.cache)
        inputs = {"scores": (self.root / "scores",), "heads": tuple(heads)}
        job = Job("deteriorations", DeteriorationsSpec.model_validate(spec), inputs, out or self.root / "out")
        evaluate_deteriorations(job, cache)
        return job.output

    def uncertainty(self, seed: int, kind: str, severity: int) -> np.ndarray:
        if severity == 0:
            return score(self.weights[seed], self.clean)
        draw = next(k for k, each in enumerate(DRAWS) if (each["kind"], each["severity"]) == (kind, severity))
        return score(self.weights[seed], self.embedding[draw])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def test_scores_are_the_heads_of_each_draw(world: World) -> None:
    scores = pd.read_parquet(world.evaluate() / "scores.parquet")
    assert scores["sample_id"].tolist() == world.sample_id.tolist()
    assert len(scores.columns) == 1 + len(DRAWS) * len(SEEDS)
    for seed in SEEDS:
        for draw in DRAWS:
            column = scores[f"{draw['kind']}_{draw['severity']}_seed{seed}"]
            assert column.dtype == np.float32
            np.testing.assert_array_equal(column, world.uncertainty(seed, draw["kind"], draw["severity"]))


def test_metrics_equal_a_loop_over_images(world: World) -> None:
    rows = read_metric_rows(world.evaluate() / "metrics.csv")
    assert set(rows["method"]) == {"head"} and set(rows["n"]) == {N}
    assert set(rows["variant"]) == {"paper"} and set(rows["dataset"]) == {"unseen"}
    value = rows.set_index(["seed", "metric"])["value"]
    assert len(value) == len(SEEDS) * (1 + 2 * len(DRAWS))
    for seed in SEEDS:
        clean = sorted(world.uncertainty(seed, "clean", 0).tolist())
        assert value[seed, "median_unc_clean"] == pytest.approx((clean[N // 2 - 1] + clean[N // 2]) / 2)
        for draw in DRAWS:
            kind, severity = draw["kind"], draw["severity"]
            before, after = (world.uncertainty(seed, kind, each) for each in (severity - 1, severity))
            rising = sum(1 for a, b in zip(before, after, strict=True) if b > a)
            assert value[seed, f"rises_{kind}_{severity}"] == pytest.approx(rising / N)
            ordered = sorted(after.tolist())
            middle = (ordered[N // 2 - 1] + ordered[N // 2]) / 2
            assert value[seed, f"median_unc_{kind}_{severity}"] == pytest.approx(middle)


def test_equal_uncertainty_does_not_rise() -> None:
    same = np.full(4, 0.5)
    assert deterioration_metrics(same, {("blur", 1): same})["rises_blur_1"].value == 0


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=30))
def test_rises_depend_on_the_order_of_u_alone(rows: list[tuple[int, int, int]]) -> None:
    clean, first, second = np.array(rows, dtype=np.float64).T
    plain = deterioration_metrics(clean, {("box", 1): first, ("box", 2): second})
    mapped = deterioration_metrics(np.exp(clean), {("box", 2): np.exp(second), ("box", 1): np.exp(first)})
    for key in ("rises_box_1", "rises_box_2"):
        assert plain[key] == mapped[key]
        assert 0 <= plain[key].value <= 1


def test_evaluating_again_gives_the_same_digest(world: World, tmp_path: Path) -> None:
    digests = [artefacts.read(world.evaluate(out=tmp_path / name), "deteriorations").digest for name in "ab"]
    assert digests[0] == digests[1]


def test_a_cache_of_other_draws_is_refused(world: World, tmp_path: Path) -> None:
    swapped = [DRAWS[1], DRAWS[0], *DRAWS[2:]]
    other = ArrayCache(tmp_path / "swapped", world.embedding, world.sample_id, swapped)
    with pytest.raises(ArtefactError, match="swapped: has draws"):
        world.evaluate(cache=other, out=tmp_path / "out")
    with pytest.raises(ArtefactError, match="has dataset unseen, but known was asked for"):
        world.evaluate({**SPEC, "dataset": "known"}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_severity_is_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"deterioration 'blur' has the severities \[2, 3\]"):
        world.evaluate({**SPEC, "draws": [DRAWS[0], *DRAWS[2:]]}, out=tmp_path / "out")


def test_scores_of_other_images_are_named(world: World, tmp_path: Path) -> None:
    other = ArrayCache(tmp_path / "view", world.embedding[:, 1:], world.sample_id[1:], DRAWS)
    with pytest.raises(ArtefactError, match="scores"):
        world.evaluate(cache=other, out=tmp_path / "out")
    with pytest.raises(ArtefactError, match="'seed' is 1, but 2"):
        world.evaluate(heads=[world.heads[1], world.heads[1]], out=tmp_path / "out")


@pytest.mark.slow
def test_deteriorations_load_no_torch() -> None:
    code = (
        "import sys, pipeline_lib.evaluation.deteriorations, pipeline_lib.evaluation.projection; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
