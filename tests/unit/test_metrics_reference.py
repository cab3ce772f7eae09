"""What the reference code computes, rebuilt with torch and whole similarity matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from pipeline_lib.config.evaluation import Neighbours
from pipeline_lib.metrics.auroc import auroc
from pipeline_lib.metrics.reference import auroc_reference, neighbour_reference
from pipeline_lib.retrieval.search import nearest_neighbours


@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0, 1e8])
def test_scores_outside_of_the_unit_interval_pass_a_float32_sigmoid(scale: float) -> None:
    rng = np.random.default_rng(0)
    u = (rng.normal(size=4000) * scale).astype(np.float32)
    is_positive = rng.random(4000) < 0.4
    logistic = torch.sigmoid(torch.from_numpy(u)).numpy()
    value = auroc_reference(u, is_positive, "toy")
    # Two sigmoids may round a few scores to other neighbours, which moves a pair or two by one half.
    assert value == pytest.approx(roc_auc_score(is_positive, logistic), abs=2e-5)
    if scale >= 30:
        assert abs(value - auroc(u, is_positive, "toy")) > 1e-4


def test_scores_in_the_unit_interval_are_only_rounded() -> None:
    rng = np.random.default_rng(0)
    u, is_positive = rng.random(500), rng.random(500) < 0.4
    u[:2] = 0, 1
    expected = roc_auc_score(is_positive, u.astype(np.float32))
    assert auroc_reference(u, is_positive, "toy") == pytest.approx(expected, abs=1e-12)


def test_large_scores_saturate_and_tie() -> None:
    is_positive = np.array([False, False, True, True])
    assert auroc(np.array([18.0, 19, 20, 1e8]), is_positive, "toy") == 1
    assert auroc_reference(np.array([18.0, 19, 20, 1e8]), is_positive, "toy") == 0.5
    assert auroc_reference(np.array([-1e8, -200, -100, -90]), is_positive, "toy") == 0.5
    assert auroc_reference(np.array([-1e8, -80, -70, np.inf]), is_positive, "toy") == 1


@settings(max_examples=60, deadline=None)
@given(picks=st.lists(st.integers(0, 5), min_size=2, max_size=14), seed=st.integers(0, 99))
def test_second_hit_equals_that_of_a_search_with_the_query_in_the_gallery(picks: list[int], seed: int) -> None:
    # No two of these vectors are multiples of each other, and copies are bit for bit the same.
    kinds = np.random.default_rng(seed).normal(size=(6, 5)).astype(np.float32)
    rows = kinds[picks]
    found = nearest_neighbours(lambda a, b: rows[a:b], len(rows), Neighbours(device="cpu", block_rows=64))
    unit = kinds.astype(np.float64) / np.linalg.norm(kinds.astype(np.float64), axis=1, keepdims=True)
    similarity = (unit @ unit.T)[np.ix_(picks, picks)]
    similarity[np.equal.outer(picks, picks)] = 1
    second = np.argsort(-similarity, axis=1, kind="stable")[:, 1]
    assert neighbour_reference(found.index, found.similarity).tolist() == second.tolist()


def test_the_second_of_two_copies_keeps_itself() -> None:
    neighbour, similarity = np.array([3, 2, 1, 0]), np.array([1.0, 0.3, 0.3, 1.0])
    assert neighbour_reference(neighbour, similarity).tolist() == [3, 2, 1, 3]
    almost = np.array([1 - 1e-9, 0.3, 0.3, 1 - 1e-9])
    assert neighbour_reference(neighbour, almost).tolist() == [3, 2, 1, 0]
