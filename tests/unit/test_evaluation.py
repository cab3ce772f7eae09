"""Evaluation from caches to metrics.csv, against scikit-learn, SciPy and loops on small random worlds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import scipy.stats
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from pipeline_lib.config.evaluation import Mix, Neighbours
from pipeline_lib.config.load import load_config
from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.core.jobs import Job
from pipeline_lib.core.spec import Spec
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.evaluation.aggregate import aggregate
from pipeline_lib.evaluation.baselines import evaluate_baselines
from pipeline_lib.evaluation.heads import evaluate_heads
from pipeline_lib.evaluation.metric_rows import COLUMNS, metric_rows, read_metric_rows, write_metric_rows
from pipeline_lib.evaluation.scores import read_scores, write_evaluation
from pipeline_lib.evaluation.spec import BaselinesSpec, HeadsSpec
from pipeline_lib.heads.checkpoint import TrainedHead
from pipeline_lib.heads.numpy_head import score
from pipeline_lib.metrics.bootstrap import Resampling
from pipeline_lib.metrics.metric import Value
from pipeline_lib.metrics.selective import aurc
from pipeline_lib.retrieval.mixed import mixed_neighbours
from pipeline_lib.retrieval.search import nearest_neighbours
from pipeline_lib.retrieval.store import read_neighbours, write_neighbours
from pipeline_lib.stages import evaluate_heads as evaluate_heads_stage
from pipeline_lib.stages import neighbours
from tests.jobs import run
from tests.unit.heads_world import stored

ROOT = Path(__file__).parents[2]
DIM = 6
SEEDS = [3, 1]
SETTINGS = {
    "bootstrap": {"resamples": 40, "confidence": 0.9, "seed": 0},
    "target_accuracies": [0.5, 0.9],
    "compat": "none",
}
MIX = Mix(images=50, seed=4)
SEARCH = Neighbours(device="cpu", block_rows=16)
COPY = 20
BASELINES = ["class_entropy", "embedding_norm", "knn_distance"]


class ArrayCache:
    """The interface of `FeatureCache` over arrays in memory."""

    def __init__(self, view_dir: Path, **arrays: np.ndarray) -> None:
        self.view_dir, self.arrays = view_dir, arrays
        self.rows, self.dim = arrays["embedding"].shape
        with artefacts.writing(view_dir / "cache", "cache", {}) as draft:
            draft.facts.update(rows=self.rows, backbone="digest of small")
        self.manifest = artefacts.read(view_dir / "cache", "cache")

    def read(self, array: str, epoch: int, start: int, stop: int) -> np.ndarray:
        assert epoch == 0
        return self.arrays[array][start:stop]

    def read_all(self, array: str) -> np.ndarray:
        return self.arrays[array]


class Set:
    """One dataset, its caches, neighbours and evaluations. The image `skipped` is in the dataset alone."""

    def __init__(
        self, root: Path, name: str, *, images: int, seed: int, upstream: Set | None, with_votes: bool
    ) -> None:
        self.root, self.name, self.is_upstream = root / name, name, upstream is None
        rng = np.random.default_rng(seed)
        label = np.append(rng.integers(0, 4, images - 1), 4)  # the last image is alone in its class
        votes = rng.integers(0, 3, (images, 5)) + 3 * np.eye(5, dtype=int)[label]
        self._write_dataset(label, votes if with_votes else None)
        self.sample_id = np.delete(np.arange(images), 7)
        self.label = label[self.sample_id]
        n = len(self.label)
        centre = rng.normal(size=(5, DIM))
        arrays: dict[str, Any] = {
            "sample_id": self.sample_id,
            "label": self.label,
            "embedding": (centre[self.label] + rng.normal(size=(n, DIM))).astype(np.float16),
            "class_entropy": rng.integers(0, 20, n).astype(np.float32),
        }
        # A copy of an image of lower index and another label: wrong, but right by the reference code.
        arrays["embedding"][COPY] = arrays["embedding"][np.argmax(self.label != self.label[COPY])]
        crop = arrays | {
            "embedding": (arrays["embedding"] / 2).astype(np.float16),
            "class_entropy": rng.integers(0, 20, n).astype(np.float32),
            "crop_fraction": rng.uniform(0.1, 0.75, n).astype(np.float32),
        }
        if self.is_upstream:
            arrays["label_rank"] = rng.integers(0, 8, n).astype(np.int32) // 2
            arrays["task_loss"] = rng.random(n).astype(np.float32)
        entropy = ImageDataset(self.root / "dataset", "test").vote_entropy()
        self.vote_entropy = None if entropy is None else np.delete(entropy, 7)
        self.eval_cache = ArrayCache(self.root / "eval", **arrays)
        self.crop_cache = ArrayCache(self.root / "centre_crop", **crop)
        found = nearest_neighbours(lambda start, stop: arrays["embedding"][start:stop], n, SEARCH)
        mixed = upstream and mixed_neighbours(upstream.eval_cache, self.eval_cache, MIX, SEARCH)
        spec = neighbours.Spec(backbone="small", dataset=name, split="test", search=SEARCH)
        write_neighbours(Job("neighbours", spec, {}, self.root / "neighbours"), found, self.eval_cache, mixed)

    def _write_dataset(self, label: np.ndarray, votes: np.ndarray | None) -> None:
        (self.root / "images").mkdir(parents=True)
        table = pd.DataFrame({"path": [f"{i}.png" for i in range(len(label))]})
        for path in table["path"]:
            (self.root / "images" / path).write_bytes(b"never decoded here")
        options = {"kind": "table", "path": "t.csv", "images": "images", "split": "test", "skip_unreadable": 1}
        if votes is None:
            table["class"] = [f"class{each}" for each in label]
            options["label_column"] = "class"
        else:
            for column in range(5):
                table[f"class{column}"] = votes[:, column]
        table.to_csv(self.root / "t.csv", index=False)
        spec = {"name": self.name, "options": options, "data_dir": str(self.root)}
        run("dataset", spec, self.root / "dataset")

    def evaluate_baselines(self, upstream: Set | None, out: str | Path = "baselines", **replace: Any) -> Path:
        given = {"upstream": upstream and upstream.root / "baselines", **replace}
        return self._evaluate(evaluate_baselines, "baselines", BaselinesSpec, out, given)

    def evaluate_heads(
        self, heads: list[Path], upstream: Set | None, out: str | Path = "heads", **replace: Any
    ) -> Path:
        given = {"upstream": upstream and upstream.root / "heads", "heads": heads, **replace}
        given = {"variant": "paper", "seeds": SEEDS, "baselines": self.root / "baselines", **given}
        return self._evaluate(evaluate_heads, "evaluate_heads", HeadsSpec, out, given)

    def _evaluate(
        self, evaluate: Callable[..., None], stage: str, spec: type[Spec], out: str | Path, given: dict[str, Any]
    ) -> Path:
        """Evaluate; given: fields of the spec, caches, and folders of inputs."""
        caches = [given.pop(name, getattr(self, name)) for name in ("eval_cache", "crop_cache")]
        common = {"backbone": "small", "dataset": self.name, "split": "test", "is_upstream": self.is_upstream}
        fields = {name: given.pop(name) for name in list(given) if name in spec.model_fields}
        places = {"dataset": self.root / "dataset", "neighbours": self.root / "neighbours", **given}
        inputs = {name: tuple(each) if isinstance(each, list) else (each,) for name, each in places.items() if each}
        job = Job(stage, spec.model_validate({**common, **SETTINGS, **fields}), inputs, self.root / out)
        evaluate(job, *caches)
        return job.output


class World:
    """An upstream and two downstream sets with two heads, all evaluated."""

    def __init__(self, root: Path) -> None:
        self.upstream = Set(root, "known", images=90, seed=0, upstream=None, with_votes=False)
        self.downstream = [
            Set(root, "unseen", images=60, seed=1, upstream=self.upstream, with_votes=True),
            Set(root, "NA", images=40, seed=2, upstream=self.upstream, with_votes=False),
        ]
        self.sets = [self.upstream, *self.downstream]
        rng = np.random.default_rng(9)
        shapes = {"layers.0.weight": (8, DIM), "layers.0.bias": (8,), "layers.1.weight": (1, 8), "layers.1.bias": (1,)}
        self.weights: dict[int, dict[str, np.ndarray]] = {}
        self.heads = [root / f"head{seed}" for seed in SEEDS]
        for seed in SEEDS:
            self.weights[seed] = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
            head = TrainedHead(seed, self.weights[seed], ({"loss": 0.0},))
            stored(root / f"head{seed}", head, backbone="small", variant="paper")
        self.evaluations = []
        for each in self.sets:
            upstream = None if each is self.upstream else self.upstream
            self.evaluations.append(each.evaluate_baselines(upstream))
            self.evaluations.append(each.evaluate_heads(self.heads, upstream))
        self.table = root / "metrics.csv"
        write_metric_rows(aggregate(self.evaluations), self.table)
        self.metrics = read_metric_rows(self.table)

    def sets_of(self, downstream: Set) -> tuple[Set, Set]:
        return self.upstream, downstream

    def value(self, metric: str, method: str, dataset: str, seed: int | None = None) -> tuple[float, int]:
        rows = self.metrics[
            (self.metrics["metric"] == metric)
            & (self.metrics["method"] == method)
            & (self.metrics["dataset"] == dataset)
            & (self.metrics["seed"].isna() if seed is None else self.metrics["seed"] == seed)
        ]
        assert len(rows) == 1, f"{metric} of {method} on {dataset}: {len(rows)} rows"
        return float(rows["value"].iloc[0]), int(rows["n"].iloc[0])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def similarities(values: np.ndarray) -> np.ndarray:
    wide = values.astype(np.float64)
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -2)
    return similarity


def correct_by_loop(each: Set) -> np.ndarray:
    similarity = similarities(each.eval_cache.arrays["embedding"])
    return np.array([each.label[np.argmax(row)] == label for row, label in zip(similarity, each.label, strict=True)])


def uncertainties(world: World, each: Set) -> dict[tuple[str, int | None], tuple[np.ndarray, np.ndarray | None]]:
    """Return (u, u of the crop) per method and seed, computed anew."""
    image, crop = each.eval_cache.arrays, each.crop_cache.arrays
    norms = [-np.linalg.norm(arrays["embedding"].astype(np.float64), axis=1) for arrays in (image, crop)]
    found: dict[tuple[str, int | None], tuple[np.ndarray, np.ndarray | None]] = {
        ("class_entropy", None): (image["class_entropy"], crop["class_entropy"]),
        ("embedding_norm", None): (norms[0], norms[1]),
        ("knn_distance", None): (1 - similarities(image["embedding"]).max(axis=1), None),
    }
    for seed, weights in world.weights.items():
        found["head", seed] = (score(weights, image["embedding"]), score(weights, crop["embedding"]))
    return found


def test_representation_metrics_equal_a_loop(world: World) -> None:
    for each in world.sets:
        value, n = world.value("r1", "representation", each.name)
        assert (value, n) == (pytest.approx(correct_by_loop(each).mean()), len(each.label))
        assert not correct_by_loop(each)[COPY]
        assert world.value("reference_r1", "representation", each.name)[0] == pytest.approx(value + 1 / n)
        assert world.value("lone_class_images", "representation", each.name)[0] == 1
        low, high = (world.value(f"r1_ci_{end}", "representation", each.name)[0] for end in ("low", "high"))
        assert low < value < high
    label_rank = world.upstream.eval_cache.arrays["label_rank"]
    assert world.value("top1", "representation", "known")[0] == pytest.approx((label_rank == 0).mean())
    assert world.value("top5", "representation", "known")[0] == pytest.approx((label_rank <= 4).mean())


def test_uncertainty_metrics_equal_scikit_learn_and_scipy(world: World) -> None:
    for each in world.sets:
        correct, fraction = correct_by_loop(each), each.crop_cache.arrays["crop_fraction"]
        for (method, seed), (image, crop) in uncertainties(world, each).items():

            def value(metric: str, method: str = method, each: Set = each, seed: int | None = seed) -> float:
                return world.value(metric, method, each.name, seed)[0]

            auroc = roc_auc_score(~correct, image)
            assert value("auroc_correct") == pytest.approx(auroc, abs=1e-12)
            assert value("auroc_correct_ci_low") < auroc < value("auroc_correct_ci_high")
            scores = torch.from_numpy(-1 / image if method == "embedding_norm" else image).to(torch.float32)
            scores = scores if ((scores >= 0) & (scores <= 1)).all() else torch.sigmoid(scores)
            wrong = ~correct & (np.arange(len(correct)) != COPY)
            assert value("reference_auroc_correct") == pytest.approx(roc_auc_score(wrong, scores.numpy()), abs=1e-12)
            if crop is not None:
                assert value("croppedHasBiggerUnc") == pytest.approx((crop > image).mean())
                assert value("rcorr_crop_unc") == pytest.approx(spearmanr(-crop, fraction).statistic, abs=1e-12)
            assert value("unc_q75") == pytest.approx(np.quantile(image.astype(np.float64), 0.75))
            if each.vote_entropy is not None:
                expected = spearmanr(image, each.vote_entropy).statistic
                assert value("rcorr_entropy") == pytest.approx(expected, abs=1e-12)
                not_dirac = roc_auc_score(each.vote_entropy > 0, image)
                assert value("auroc_not_dirac") == pytest.approx(not_dirac, abs=1e-12)
            if each.is_upstream:
                wrong = each.eval_cache.arrays["label_rank"] > 0
                assert value("auroc_classification") == pytest.approx(roc_auc_score(wrong, image), abs=1e-12)


def test_auroc_ood_compares_all_images_with_all_upstream_ones(world: World) -> None:
    upstream = uncertainties(world, world.upstream)
    for each in world.downstream:
        for (method, seed), (image, _) in uncertainties(world, each).items():
            value, n = world.value("auroc_ood", method, each.name, seed)
            pooled = np.concatenate([upstream[method, seed][0], image])
            of_all = roc_auc_score(np.arange(len(pooled)) >= len(pooled) - len(image), pooled)
            assert (value, n) == (pytest.approx(of_all, abs=1e-12), len(pooled))


def test_auroc_correct_mixed_equals_a_loop_over_both_sets(world: World) -> None:
    for each in world.downstream:
        mixed = read_neighbours(each.root / "neighbours").mixed
        assert mixed is not None
        sides = [np.isin(a.sample_id, mixed.sample_id[mixed.is_upstream == a.is_upstream]) for a in world.sets_of(each)]
        size = min(MIX.images, len(each.label))
        assert [side.sum() for side in sides] == [size, size]
        embedding, label = (
            np.concatenate(
                [a.eval_cache.arrays[name][side] for a, side in zip(world.sets_of(each), sides, strict=True)]
            )
            for name in ("embedding", "label")
        )
        label = label + 100 * (np.arange(2 * size) >= size)
        wrong = label[similarities(embedding).argmax(axis=1)] != label
        for (method, seed), (image, _) in uncertainties(world, each).items():
            upstream = uncertainties(world, world.upstream)[method, seed][0]
            expected = roc_auc_score(wrong, np.concatenate([upstream[sides[0]], image[sides[1]]]))
            value, n = world.value("auroc_correct_mixed", method, each.name, seed)
            assert (value, n) == (pytest.approx(expected, abs=1e-12), 2 * size)


def test_differences_from_baselines_are_of_the_same_resamples(world: World) -> None:
    each, seed = world.downstream[1], 1
    wrong, found = ~correct_by_loop(each), uncertainties(world, each)
    draws = [np.repeat(np.arange(len(wrong)), counts) for counts in Resampling(len(wrong), 40, 0).counts()]
    for name in BASELINES:
        ours, theirs = found["head", seed][0], found[name, None][0]
        metric = f"auroc_correct_minus_{name}"
        value = world.value(metric, "head", each.name, seed)[0]
        assert value == pytest.approx(roc_auc_score(wrong, ours) - roc_auc_score(wrong, theirs), abs=1e-12)
        differences = [
            roc_auc_score(wrong[drawn], ours[drawn]) - roc_auc_score(wrong[drawn], theirs[drawn]) for drawn in draws
        ]
        for end, share in (("low", 0.05), ("high", 0.95)):
            bound = world.value(f"{metric}_ci_{end}", "head", each.name, seed)[0]
            assert bound == pytest.approx(np.quantile(differences, share), abs=1e-12)


def test_the_combination_of_distance_and_head_is_compared_with_both(world: World) -> None:
    each, seed = world.downstream[1], 1
    wrong, found = ~correct_by_loop(each), uncertainties(world, each)
    u, distance = found["head", seed][0], found["knn_distance", None][0]
    weight = max(0.0, scipy.stats.spearmanr(u, distance).statistic)
    together = scipy.stats.zscore(distance) + weight * scipy.stats.zscore(u.astype(np.float64))
    value = world.value("auroc_correct", "combination", each.name, seed)[0]
    assert value == pytest.approx(roc_auc_score(wrong, together), abs=1e-12)
    for name, theirs in {"head": u, "knn_distance": distance}.items():
        difference = world.value(f"auroc_correct_minus_{name}", "combination", each.name, seed)[0]
        assert difference == pytest.approx(value - roc_auc_score(wrong, theirs), abs=1e-12)
        low, high = (
            world.value(f"auroc_correct_minus_{name}_ci_{end}", "combination", each.name, seed)[0]
            for end in ("low", "high")
        )
        assert low <= difference <= high
    of_it = world.metrics[world.metrics["method"] == "combination"]["metric"]
    assert not of_it.isin(["auroc_ood", "croppedHasBiggerUnc", "auroc_correct_mixed"]).any()


def test_selective_metrics_are_there_for_every_target(world: World) -> None:
    for each in world.sets:
        wrong = ~correct_by_loop(each)
        for (method, seed), (image, _) in uncertainties(world, each).items():
            assert world.value("aurc", method, each.name, seed)[0] == pytest.approx(
                aurc(image, wrong, "toy"), abs=1e-12
            )
            low, high = (world.value(f"coverage_at_r1_{t}", method, each.name, seed)[0] for t in (0.5, 0.9))
            assert 0 <= high <= low <= 1
            assert 0 <= world.value("e_aurc", method, each.name, seed)[0] < 1


def test_compat_replaces_the_two_point_values_alone(world: World, tmp_path: Path) -> None:
    each = world.downstream[0]
    each.evaluate_baselines(world.upstream, tmp_path / "baselines", compat="reference")
    each.evaluate_heads(world.heads, world.upstream, tmp_path / "heads", compat="reference")
    key = ["method", "seed", "metric"]
    for folder in ("baselines", "heads"):
        exact = read_metric_rows(each.root / folder / "metrics.csv").set_index(key)["value"]
        compat = read_metric_rows(tmp_path / folder / "metrics.csv").set_index(key)["value"]
        replaced = compat.index.get_level_values("metric").isin(["auroc_correct", "r1"])
        pd.testing.assert_series_equal(compat[~replaced], exact[~replaced])
        for method, seed, metric in compat.index[replaced]:
            assert compat[method, seed, metric] == exact[method, seed, f"reference_{metric}"]


def test_metrics_stand_only_where_they_are_defined(world: World) -> None:
    having = {
        metric: set(rows["dataset"])
        for metric, rows in world.metrics[world.metrics["dataset"] != "downstream"].groupby("metric")
    }
    assert having["auroc_classification"] == having["top1"] == having["top5"] == {"known"}
    assert having["auroc_ood"] == {"unseen", "NA"}
    assert having["auroc_correct_mixed"] == {"unseen", "NA"}
    assert having["rcorr_entropy"] == having["auroc_not_dirac"] == {"unseen"}
    assert having["auroc_correct_minus_knn_distance_ci_low"] == {"known", "unseen", "NA"}
    without_crops = world.metrics[world.metrics["method"] == "knn_distance"]["metric"]
    assert not without_crops.isin(["croppedHasBiggerUnc", "rcorr_crop_unc"]).any()
    compared = world.metrics[world.metrics["metric"].str.startswith("auroc_correct_minus")]
    assert set(compared["method"]) == {"head", "combination"}
    assert set(compared.loc[compared["metric"] == "auroc_correct_minus_head", "method"]) == {"combination"}
    assert having["auroc_correct"] == {"known", "unseen", "NA"}


def test_without_a_classifier_what_needs_none_is_the_same_and_the_rest_is_left_out(
    world: World, tmp_path: Path
) -> None:
    of_classifier = ("class_entropy", "label_rank", "task_loss")

    def without(cache: ArrayCache, name: str) -> ArrayCache:
        kept = {key: values for key, values in cache.arrays.items() if key not in of_classifier}
        return ArrayCache(tmp_path / name, **kept)

    each = world.upstream
    caches = {"eval_cache": without(each.eval_cache, "eval"), "crop_cache": without(each.crop_cache, "crop")}
    baselines = each.evaluate_baselines(None, tmp_path / "baselines", **caches)
    heads = each.evaluate_heads(world.heads, None, tmp_path / "heads", **caches, baselines=baselines)
    key = ["method", "seed", "metric"]
    found = pd.concat([read_metric_rows(folder / "metrics.csv") for folder in (baselines, heads)]).set_index(key)
    full = world.metrics[world.metrics["dataset"] == each.name].set_index(key)
    left_out = [row for row in full.index if row not in found.index]
    assert {method for method, _, _ in left_out} == {
        "class_entropy",
        "representation",
        "head",
        "combination",
        *BASELINES,
    }
    assert {metric for method, _, metric in left_out if method != "class_entropy"} == {
        "top1",
        "top5",
        "auroc_classification",
        *[f"auroc_correct_minus_class_entropy{end}" for end in ("", "_ci_low", "_ci_high")],
    }
    pd.testing.assert_series_equal(found["value"], full["value"].loc[found.index])


def test_means_over_downstream_sets_are_plain_and_leave_upstream_out(world: World) -> None:
    for method, seed in [("class_entropy", None), ("head", 3), ("head", 1)]:
        values = [world.value("auroc_correct", method, each.name, seed)[0] for each in world.downstream]
        mean, sets = world.value("avg_downstream_auroc_correct", method, "downstream", seed)
        assert (mean, sets) == (pytest.approx(np.mean(values), abs=1e-15), 2)
    assert world.value("avg_downstream_rcorr_entropy", "head", "downstream", 1)[1] == 1
    averaged = world.metrics.loc[world.metrics["dataset"] == "downstream", "metric"]
    assert not averaged.str.contains("_ci_|lone_class|top1").any()


def test_table_does_not_depend_on_the_order_of_the_evaluations(world: World, tmp_path: Path) -> None:
    write_metric_rows(aggregate(world.evaluations[::-1]), tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_bytes() == world.table.read_bytes()
    assert world.table.read_text().splitlines()[0] == ",".join(COLUMNS)


def test_an_evaluation_that_is_listed_twice_is_refused(world: World) -> None:
    with pytest.raises(ArtefactError, match="two evaluations hold the metric small"):
        aggregate([*world.evaluations, world.evaluations[0]])


def test_means_do_not_depend_on_the_order_of_the_sets(tmp_path: Path) -> None:
    """Of 0.1, 0.2 and 0.3 the sum depends on the order, in floating point."""
    folders = []
    for dataset, value in (("a", 0.1), ("b", 0.2), ("c", 0.3)):
        spec = BaselinesSpec.model_validate(
            {"backbone": "small", "dataset": dataset, "split": "test", "is_upstream": False, **SETTINGS}
        )
        folders.append(tmp_path / dataset)
        rows = metric_rows(spec, "class_entropy", None, {"aurc": Value(value, 9)})
        write_evaluation(Job("baselines", spec, {}, folders[-1]), {"sample_id": np.arange(9)}, rows)
    means = {tuple(aggregate(order).query("dataset == 'downstream'")["value"]) for order in permutations(folders)}
    assert len(means) == 1 and means.pop() == (pytest.approx(0.2),)


def test_scores_have_a_row_per_cached_image(world: World) -> None:
    for each in world.sets:
        baselines = pq.read_table(each.root / "baselines" / "scores.parquet").to_pandas()
        heads = pq.read_table(each.root / "heads" / "scores.parquet").to_pandas()
        assert baselines["sample_id"].tolist() == heads["sample_id"].tolist() == each.sample_id.tolist()
        assert baselines["correct"].tolist() == correct_by_loop(each).tolist()
        neighbour = baselines.set_index("sample_id").loc[baselines["neighbour_sample_id"], "label"].to_numpy()
        assert (neighbour == baselines["label"]).tolist() == baselines["correct"].tolist()
        assert not baselines["correct"].iloc[-1]  # alone in its class
        for seed in SEEDS:
            image, crop = uncertainties(world, each)["head", seed]
            assert crop is not None
            np.testing.assert_array_equal(heads[f"uncertainty_seed{seed}"], image)
            np.testing.assert_array_equal(heads[f"crop_uncertainty_seed{seed}"], crop)


def test_evaluating_again_gives_the_same_digest(world: World, tmp_path: Path) -> None:
    each = world.downstream[0]
    before = artefacts.read(each.root / "heads", "evaluate_heads").digest
    each.evaluate_heads(world.heads, world.upstream, tmp_path / "heads")
    assert artefacts.read(tmp_path / "heads", "evaluate_heads").digest == before


def test_neighbours_come_back_as_written(world: World) -> None:
    table = read_neighbours(world.upstream.root / "neighbours", {"dataset": "known"})
    assert table.manifest.facts == {"rows": 89, "lone_class_images": 1}
    assert table.sample_id.tolist() == world.upstream.sample_id.tolist()
    with pytest.raises(ArtefactError, match="dataset"):
        read_neighbours(world.upstream.root / "neighbours", {"dataset": "other"})


def test_ablations_are_evaluated_without_the_upstream_set() -> None:
    config = load_config(ROOT / "config.yaml")
    assert config.ablations is not None
    refs = evaluate_heads_stage.wanted_ablations(config)
    assert len(refs) == len(config.ablations.variants) * 3  # of the sets that Table 3 averages over
    variant, (dataset, split) = next(iter(config.variants)), ("greek", "test")
    of_head = evaluate_heads_stage.inputs(config, "resnet", variant, dataset, split)
    of_ablation = evaluate_heads_stage.inputs(config, **dict(refs[0].wildcards))
    assert of_head.keys() - of_ablation.keys() == {"upstream", "neighbours"}
    assert evaluate_heads_stage.inputs(config, "resnet", variant, "latin", "test").keys() == of_ablation.keys()
    specs = [evaluate_heads_stage.Spec.of(config, **dict(ref.wildcards)) for ref in refs]
    assert len({evaluate_heads_stage.together(spec) for spec in specs}) == 3


def shortened(cache: ArrayCache, view_dir: Path) -> ArrayCache:
    return ArrayCache(view_dir, **{name: values[:-1] for name, values in cache.arrays.items()})


def test_artefacts_of_other_images_are_named(world: World, tmp_path: Path) -> None:
    each = world.downstream[0]
    short_eval = shortened(each.eval_cache, tmp_path / "short_eval")
    short_crop = shortened(each.crop_cache, tmp_path / "short_crop")
    with pytest.raises(ArtefactError, match="short_crop: lacks 1 of 59 images, the first with sample_id 59"):
        each.evaluate_baselines(None, tmp_path / "out", crop_cache=short_crop)
    with pytest.raises(ArtefactError, match="neighbours"):
        each.evaluate_baselines(None, tmp_path / "out", eval_cache=short_eval, crop_cache=short_crop)
    with pytest.raises(ArtefactError, match="baselines"):
        each.evaluate_heads(world.heads, None, tmp_path / "out", eval_cache=short_eval)
    with pytest.raises(ArtefactError, match="unseen/eval: has other labels"):
        labels = each.eval_cache.arrays | {"label": each.label[::-1].copy()}
        other = ArrayCache(tmp_path / "unseen" / "eval", **labels)
        each.evaluate_baselines(None, tmp_path / "out", eval_cache=other)
    with pytest.raises(ArtefactError, match="'seed' is 1, but 3"):
        each.evaluate_heads([world.heads[1], world.heads[1]], None, tmp_path / "out")
    with pytest.raises(PipelineError, match="1 heads for 2 seeds"):
        each.evaluate_heads(world.heads[:1], None, tmp_path / "out")
    with pytest.raises(ArtefactError, match="made by stage 'neighbours', but baselines, evaluate_heads was"):
        read_scores(each.root / "neighbours", {"dataset": each.name})
    assert not (tmp_path / "out").exists()


def test_evaluation_loads_neither_torch_nor_scipy() -> None:
    code = (
        "import sys, pipeline_lib.evaluation.baselines, pipeline_lib.evaluation.heads, "
        "pipeline_lib.evaluation.aggregate; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
