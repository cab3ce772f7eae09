"""The safe index against loops over items and against the safe retrieval of the evaluation."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.calibration.risk_control import candidate_thresholds, learn_then_test
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.evaluation.safe_retrieval import error_grid, removal_level
from pipeline_lib.metrics.retrieval import neighbour_is_correct
from pipeline_lib.retrieval.items import share_threshold
from pipeline_lib.retrieval.restricted import nearest_kept
from pipeline_lib.retrieval.safe_index import SafeIndex
from pipeline_lib.retrieval.signals import SIGNALS, Signal, combine

DIM = 6


def items(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return shuffled ids, float16 representations with repeats and a zero vector, and distinct uncertainties."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, DIM)).astype(np.float16)
    values[rng.integers(0, rows, rows // 4)] = values[0]
    values[-1] = 0
    return rng.permutation(10 * rows)[:rows], values, rng.permutation(rows) / 7 + 0.5


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    left, right = left.astype(np.float64), right.astype(np.float64)
    norms = np.sqrt((left * left).sum()) * np.sqrt((right * right).sum())
    return (left * right).sum() / norms if norms else 0.0


def index_of(ids: np.ndarray, values: np.ndarray, uncertainty: np.ndarray, **options: object) -> SafeIndex:
    index = SafeIndex(values.shape[1], **options)
    index.add(ids, values, uncertainty)
    return index


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(2, 40),
    k=st.integers(1, 9),
    query_share=st.sampled_from([0.0, 0.1, 0.29, 0.5, 0.9]),
    item_share=st.sampled_from([0.0, 0.1, 0.29, 0.5, 0.9]),
    removed=st.integers(0, 12),
)
def test_a_search_equals_a_loop_over_the_items(
    seed: int, rows: int, k: int, query_share: float, item_share: float, removed: int
) -> None:
    ids, values, uncertainty = items(seed, rows)
    rng = np.random.default_rng(seed)
    index = SafeIndex(DIM, signal="uncertainty", query_share=query_share, item_share=item_share)
    half = rows // 2
    index.add(ids[:half], values[:half], uncertainty[:half])
    if half:
        index.search(values[:1], uncertainty[:1])  # what is built before a change must not be used after it
    index.add(ids[half:], values[half:], uncertainty[half:])
    gone = rng.permutation(rows)[: min(removed, rows - 1)]
    index.remove(ids[gone])
    stays = np.setdiff1d(np.arange(rows), gone)

    largest_first = sorted(uncertainty[stays], reverse=True)
    kept = [r for r in stays if uncertainty[r] not in largest_first[: round(100 * item_share) * len(stays) // 100]]
    rejecting = round(100 * query_share) * len(stays) // 100
    assert set(index.left_out) == {ids[r] for r in stays if r not in kept}
    queries = rng.normal(size=(7, DIM)).astype(np.float16)
    queries[0] = values[0]
    query_uncertainty = rng.choice(uncertainty, 7)
    found = index.search(queries, query_uncertainty, k)
    for q in range(7):
        rejected = rejecting > 0 and query_uncertainty[q] > largest_first[rejecting]
        assert found.is_rejected[q] == rejected
        ranked = [] if rejected else sorted(kept, key=lambda r: (-cosine(queries[q], values[r]), r))[:k]
        expected = [ids[r] for r in ranked] + [-1] * (k - len(ranked))
        assert found.ids[q].tolist() == expected
        similarity = [cosine(queries[q], values[r]) for r in ranked]
        np.testing.assert_array_equal(found.similarity[q], similarity + [np.nan] * (k - len(ranked)))


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.29, 0.5])
@pytest.mark.parametrize("classes", [1, 3])
def test_queries_are_rejected_by_what_was_chosen_in_each_class(signal: Signal, share: float, classes: int) -> None:
    rng = np.random.default_rng(0)
    values, uncertainty, label = rng.normal(size=(90, DIM)), rng.gamma(2.0, size=90), np.arange(90) % classes
    index = SafeIndex(DIM, signal=signal, query_share=share)
    index.add(np.arange(90), values, uncertainty, None if classes == 1 else label)
    unit = values.astype(np.float32).astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    similarity = unit @ unit.T - 3 * np.eye(90)
    distance, nearest = 1 - similarity.max(axis=1), label[similarity.argmax(axis=1)]
    expected = {"uncertainty": uncertainty, "distance": distance, "both": combine(distance, uncertainty)}[signal]
    value = index.signal_of(values, uncertainty, np.arange(90))
    np.testing.assert_allclose(value, expected, atol=1e-6)
    found = index.search(values, uncertainty, own_ids=np.arange(90))
    for own in range(classes):
        ordered = np.sort(value[nearest == own])[::-1]
        count = int(share * len(ordered) + 1e-9)
        # Two images that are each other's nearest are equally far away, and stay together.
        rejected = value > ordered[count] if count else np.zeros(90, bool)
        np.testing.assert_array_equal(found.is_rejected[nearest == own], rejected[nearest == own])


def test_a_threshold_can_be_set_from_labelled_queries(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 12, 2000)
    values = rng.normal(size=(12, 16))[label] + rng.gamma(2.0, 0.5, size=(2000, 1)) * rng.normal(size=(2000, 16))
    uncertainty = np.abs(values).mean(axis=1)
    index = index_of(np.arange(1000), values[:1000], uncertainty[:1000])
    found = index.search(values[1000:], uncertainty[1000:])
    wrong = label[found.ids[:, 0]] != label[1000:]
    labelled, others = slice(0, 300), slice(300, 1000)
    candidates = candidate_thresholds(index.references)
    index.query_thresholds = learn_then_test(found.value[labelled], wrong[labelled], candidates, 0.1, 0.9)
    index.save(tmp_path / "index")
    for one in (index, SafeIndex.load(tmp_path / "index")):
        answered = ~one.search(values[1000:], uncertainty[1000:]).is_rejected[others]
        assert 0.3 < answered.mean() < 1
        assert wrong[others][answered].mean() < 0.1 < wrong[others].mean()
    reason = index.search(values[1000:], uncertainty[1000:]).reason(int(np.argmax(found.value)))
    assert reason is not None and reason.endswith("the threshold that was set")
    index.query_share = 0.0
    assert not index.search(values[1000:], uncertainty[1000:]).is_rejected.any()


def test_each_class_can_have_a_threshold_that_was_set() -> None:
    ids, values, uncertainty = items(4, 20)
    index = SafeIndex(DIM, signal="uncertainty")
    index.add(ids, values, uncertainty, np.arange(20) % 2)
    with pytest.raises(PipelineError, match="no number for class 1"):
        index.query_thresholds = {0: 1.0}
    index.query_thresholds = {0: -np.inf, 1: np.inf}
    found = index.search(values, uncertainty)
    assert found.label is not None and np.array_equal(found.is_rejected, found.label == 0)
    index.add(np.array([5000]), values[:1], uncertainty[:1], np.array([9]))
    index.remove(ids)
    assert index.search(values, uncertainty).is_rejected.all(), "a class that has no threshold is not answered for"


@pytest.mark.parametrize(("query_share", "item_share"), [(0.0, 0.0), (0.2, 0.0), (0.0, 0.2), (0.2, 0.2), (0.5, 0.3)])
def test_errors_are_those_of_the_evaluation_of_safe_retrieval(query_share: float, item_share: float) -> None:
    rng = np.random.default_rng(3)
    label = rng.integers(0, 12, 400)
    values = (rng.normal(size=(12, 16))[label] + 0.9 * rng.normal(size=(400, 16))).astype(np.float16)
    uncertainty = rng.gamma(2.0, size=400)
    index = index_of(
        np.arange(400), values, uncertainty, signal="uncertainty", query_share=query_share, item_share=item_share
    )
    found = index.search(values, uncertainty, own_ids=np.arange(400))
    answered = ~found.is_rejected
    error = float(np.mean(label[found.ids[answered, 0]] != label[answered]))

    shares = sorted({0.0, query_share, item_share})
    level = removal_level(uncertainty, np.zeros(400, int), shares)
    everything = index_of(np.arange(400), values, uncertainty).search(values, uncertainty, own_ids=np.arange(400))
    nearest = nearest_kept(lambda a, b: values[a:b], everything.ids[:, 0], level[None], len(shares))[0]
    correct = np.stack([neighbour_is_correct(label, each) for each in nearest])
    errors, queries = error_grid(level, correct, len(shares))
    assert answered.sum() == queries[shares.index(query_share)]
    assert error == errors[shares.index(query_share), shares.index(item_share)]
    assert 0 < error < 1


def test_a_rejected_query_is_told_why() -> None:
    ids, values, _ = items(0, 20)
    index = index_of(ids, values, np.arange(20.0), signal="uncertainty", query_share=0.25)
    found = index.search(values[:3], np.array([14.0, 14.5, 99.0]))
    assert found.is_rejected.tolist() == [False, True, True]
    assert (found.threshold.tolist(), found.share, found.references.tolist()) == ([14.0] * 3, 0.25, [20] * 3)
    assert found.reason(0) is None
    reason = "uncertainty 14.5 is above 14, like that of the 25 % most uncertain of 20 reference images"
    assert found.reason(1) == reason
    assert found.ids[1:].tolist() == [[-1], [-1]]
    assert np.isnan(found.similarity[1:]).all()


def test_the_reason_names_what_was_looked_at() -> None:
    values = np.eye(4, 4)[[0, 0, 1, 1]] + 0.1 * np.eye(4)
    found = {}
    for signal in ("distance", "both"):
        index = SafeIndex(4, signal=signal, query_share=0.5)
        index.add(np.arange(4), values, np.arange(4.0), np.array([0, 0, 7, 7]))
        found[signal] = index.search(-values[2:3], np.array([9.0])).reason(0)
    assert re.fullmatch(
        r"distance 1\S* to the nearest item is above \S+, like that of the 50 % farthest of 2 reference images "
        r"near class \d",
        found["distance"],
    )
    assert re.fullmatch(
        r"uncertainty 9 and distance 1\S* to the nearest item together give \S+, above \S+, like those of the 50 % "
        r"most uncertain and farthest of 2 reference images near class \d",
        found["both"],
    )


def test_queries_can_have_references_of_their_own() -> None:
    ids, values, uncertainty = items(1, 20)
    reference = values[:4], np.array([100.0, 300.0, 200.0, 400.0])
    index = index_of(ids, values, uncertainty, signal="uncertainty", query_share=0.5, reference=reference)
    assert index.query_thresholds == {0: 200.0}
    found = index.search(values[:2], np.array([200.0, 201.0]))
    assert found.is_rejected.tolist() == [False, True]
    assert found.references.tolist() == [4, 4]


def test_shares_can_be_changed_at_any_time() -> None:
    ids, values, uncertainty = items(2, 30)
    index = index_of(ids, values, uncertainty, signal="uncertainty")
    assert not len(index.left_out)
    assert not index.search(values, uncertainty + 100).is_rejected.any()
    index.item_share = 0.5
    assert len(index.left_out) == 15
    assert not np.isin(index.search(values, uncertainty, 15).ids, index.left_out).any()
    index.query_share = 0.1
    assert index.search(values, uncertainty).is_rejected.sum() == 3
    index.item_share = index.query_share = 0
    assert np.isin(ids, index.search(values, uncertainty, 30).ids).all()


def test_images_of_equal_uncertainty_stay_together() -> None:
    assert share_threshold(np.array([1.0, 2, 2, 2]), 0.5) == 2.0
    assert share_threshold(np.arange(100.0), 0.29) == 70.0  # 0.29 * 100 is 28.999999999999996
    assert share_threshold(np.arange(3.0), 0.3) == np.inf


@pytest.mark.parametrize(("factory", "parameters"), [("IVF4,Flat", "nprobe=4"), ("HNSW16", "efSearch=64"), ("SQ8", "")])
def test_any_faiss_index_can_be_used_and_items_removed_from_it(factory: str, parameters: str) -> None:
    rng = np.random.default_rng(0)
    values, uncertainty = rng.normal(size=(400, 16)).astype(np.float32), rng.random(400)
    found = {}
    for name, options in {factory: {"factory": factory, "parameters": parameters}, "Flat": {}}.items():
        index = index_of(np.arange(400), values, uncertainty, item_share=0.2, **options)
        index.search(values, uncertainty)
        index.remove(np.arange(0, 400, 3))
        found[name] = index.search(values, uncertainty, 3)
    # Proposals are approximate, the order and the similarities of what they hold are not.
    same = found[factory].ids == found["Flat"].ids
    assert same.mean() > 0.95
    np.testing.assert_array_equal(found[factory].similarity[same], found["Flat"].similarity[same])
    assert not np.isin(found[factory].ids, np.arange(0, 400, 3)).any()


def test_a_saved_index_answers_alike_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    ids, values, uncertainty = items(5, 50)
    reference = values, uncertainty * 2
    index = index_of(ids, values, uncertainty, query_share=0.2, item_share=0.1, reference=reference)
    index.save(tmp_path / "index")
    loaded = SafeIndex.load(tmp_path / "index")
    before, after = index.search(values, uncertainty * 2, 4), loaded.search(values, uncertainty * 2, 4)
    np.testing.assert_array_equal(before.ids, after.ids)
    np.testing.assert_array_equal(before.similarity, after.similarity)
    np.testing.assert_array_equal(before.threshold, after.threshold)
    np.testing.assert_array_equal(before.is_rejected, after.is_rejected)
    assert 0 < before.is_rejected.sum() <= 10
    loaded.add(np.array([10_000]), values[:1], uncertainty[:1])
    assert len(loaded) == 51

    file = tmp_path / "index" / "items.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ArtefactError, match=r"items\.safetensors: damaged"):
        SafeIndex.load(tmp_path / "index")


def test_what_can_not_be_is_refused_and_changes_nothing() -> None:
    ids, values, uncertainty = items(6, 10)
    index = index_of(ids, values, uncertainty)
    new = np.array([1000, 1001])
    wrong = [
        (lambda: index.add(np.array([ids[3]]), values[:1], uncertainty[:1]), f"id {ids[3]} would be there twice"),
        (lambda: index.add(np.array([-4]), values[:1], uncertainty[:1]), "id -4 is negative"),
        (lambda: index.add(new, values[:2, :3], uncertainty[:2]), r"shape \(2, 3\), but must be \[2, 6\]"),
        (lambda: index.add(new, values[:2], uncertainty[:1]), r"shape \(1,\), but must be \[2\]"),
        (lambda: index.add(new, values[:2], np.array([1, np.nan])), "row 1 of the uncertainties holds NaN"),
        (lambda: index.add(new, values[:2] * np.float16(np.inf), uncertainty[:2]), "row 0 of the representations"),
        (lambda: index.add(new / 2, values[:2], uncertainty[:2]), "ids have type float64"),
        (lambda: index.remove(np.array([ids[0], 777_777])), "id 777777 is not in the index of 10 items"),
        (lambda: index.search(values, uncertainty, 0), "k is 0"),
        (lambda: index.search(values, uncertainty, own_ids=ids[:2]), "there are 10 queries"),
        (lambda: setattr(index, "item_share", 1.0), "item_share is 1.0"),
        (lambda: SafeIndex(4, query_share=-0.1), "query_share is -0.1"),
        (lambda: SafeIndex(0), "dim is 0"),
        (lambda: SafeIndex(4, signal="rank"), "signal 'rank' is unknown; allowed: both, distance, uncertainty"),
        (lambda: index.add(new, values[:2], uncertainty[:2], np.array([1])), "labels have type int64"),
        (lambda: setattr(index, "query_thresholds", np.nan), "no number for class 0"),
        (lambda: SafeIndex(4).search(np.ones((1, 4)), np.ones(1)), "the index is empty"),
        (lambda: SafeIndex(4, "Flatt"), "could not parse index string Flatt"),
        (lambda: SafeIndex(4, "Flat", "nprobe=3"), "could not set parameter nprobe"),
        (lambda: SafeIndex(DIM, "IDMap,HNSW8"), "leave it out of the factory, 'HNSW8'"),
        (lambda: SafeIndex(DIM, "IDMap2,Flat"), "leave it out of the factory, 'Flat'"),
        (lambda: index_of(ids, values, uncertainty, factory="IVF64,Flat").search(values, uncertainty), "from 10 items"),
    ]
    for call, message in wrong:
        with pytest.raises(PipelineError, match=message):
            call()
    assert index.ids.tolist() == ids.tolist()
