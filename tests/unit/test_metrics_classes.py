"""What an uncertainty says within classes, and of classes, against loops over pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.metrics.within_classes import auroc_within_classes, class_table, worst_queries

rows = st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 4)), min_size=1, max_size=40)


@given(rows=rows)
def test_within_classes_counts_the_pairs_of_one_class(rows: list[tuple[int, bool, int]]) -> None:
    wins, pairs = 0.0, 0
    for u, wrong, label in rows:
        for v, other_wrong, other in rows:
            if wrong and not other_wrong and label == other:
                wins, pairs = wins + (u > v) + 0.5 * (u == v), pairs + 1
    u, wrong, label = (np.array(column) for column in zip(*rows, strict=True))
    value = auroc_within_classes(u.astype(float), wrong, label, "toy")
    assert value == pytest.approx(wins / pairs) if pairs else np.isnan(value)


def test_the_mean_of_a_class_alone_says_nothing_within_classes() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 10, 3000)
    wrong = rng.random(3000) < 0.05 + 0.08 * label
    of_class = np.bincount(label, wrong)[label] / np.bincount(label)[label]
    assert roc_auc_score(wrong, of_class) > 0.65
    assert auroc_within_classes(of_class, wrong, label, "toy") == 0.5


def test_nan_names_the_row() -> None:
    with pytest.raises(PipelineError, match="toy is NaN in row 1"):
        auroc_within_classes(np.array([1, np.nan]), np.array([True, False]), np.zeros(2, int), "toy")


def test_the_table_of_classes_says_whom_a_threshold_would_reject() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1, 3], 100)
    u = rng.random(300) + np.array([0, 2, 9, 1.0])[label]
    wrong = rng.random(300) < 0.5
    table = class_table(u, wrong, label, np.array(["shoe", "skirt", "none", "hat"]))
    assert table["class"].tolist() == ["skirt", "hat", "shoe"]
    assert table["images"].tolist() == [100] * 3
    assert table["rejected"].tolist() == pytest.approx([0.3, 0, 0])
    for (_, row), name in zip(table.iterrows(), (1, 3, 0), strict=True):
        own = label == name
        assert row["error"] == wrong[own].mean()
        assert row["r_auroc"] == pytest.approx(roc_auc_score(wrong[own], u[own]))
        assert (u[own] > row["threshold"]).sum() == 10


def test_the_worst_queries_are_wrong_ones_at_both_ends() -> None:
    u, wrong = np.array([5.0, 1, 3, 2, 4]), np.array([True, False, True, True, False])
    confident, uncertain = worst_queries(u, wrong, 2)
    assert (confident.tolist(), uncertain.tolist()) == ([3, 2], [0, 2])
