"""Risk and coverage against brute force over orders, thresholds and rows."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.metrics.generalised_risk import augrc
from pipeline_lib.metrics.selective import aurc, coverage_at_accuracy, excess_aurc, risk_coverage_curve

Rows = list[tuple[int, bool]]
scored = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=30)


def arrays(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    return np.array([u for u, _ in rows], np.float32), np.array([wrong for _, wrong in rows])


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_risk_is_the_mean_over_all_orders_of_equal_values(rows: Rows) -> None:
    u, wrong = arrays(rows)
    orders = [order for order in itertools.permutations(range(len(u))) if (np.diff(u[list(order)]) >= 0).all()]
    risks = [[Fraction(int(wrong[list(order[:k])].sum()), k) for k in range(1, len(u) + 1)] for order in orders]
    expected = [float(sum(each) / len(orders)) for each in zip(*risks, strict=True)]
    coverage, risk = risk_coverage_curve(u, wrong)
    np.testing.assert_allclose(risk, expected, atol=1e-14)
    np.testing.assert_array_equal(coverage, [k / len(u) for k in range(1, len(u) + 1)])
    assert aurc(u, wrong, "toy") == pytest.approx(np.mean(expected), abs=1e-14)


def test_risk_without_ties_equals_a_running_mean() -> None:
    rng = np.random.default_rng(0)
    u, wrong = rng.permutation(500).astype(np.float32), rng.random(500) < 0.4
    expected = [wrong[u < k].mean() for k in range(1, 501)]
    np.testing.assert_array_equal(risk_coverage_curve(u, wrong)[1], expected)


@given(rows=scored, order=st.randoms())
def test_order_of_rows_does_not_matter(rows: Rows, order: object) -> None:
    shuffled = rows.copy()
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    for metric in (aurc, excess_aurc, augrc):
        assert metric(*arrays(shuffled), "toy") == metric(*arrays(rows), "toy")
    assert coverage_at_accuracy(*arrays(shuffled), 0.7) == coverage_at_accuracy(*arrays(rows), 0.7)


@given(rows=scored)
def test_excess_is_zero_for_an_oracle_and_never_negative(rows: Rows) -> None:
    u, wrong = arrays(rows)
    assert excess_aurc(u, wrong, "toy") >= -1e-15
    assert excess_aurc(wrong.astype(np.float64), wrong, "toy") == 0
    # Ordered among themselves, too, right ones before wrong ones are an oracle.
    assert excess_aurc(100.0 * wrong + np.arange(len(wrong)), wrong, "toy") == pytest.approx(0, abs=1e-15)


def test_oracle_of_the_finite_sample() -> None:
    wrong = np.arange(10) >= 7
    reversed_order = -np.arange(10.0)
    oracle = np.mean([0] * 7 + [1 / 8, 2 / 9, 3 / 10])
    worst = np.mean([1, 1, 1] + [3 / k for k in range(4, 11)])
    assert excess_aurc(reversed_order, wrong, "toy") == pytest.approx(worst - oracle, abs=1e-15)


@given(rows=scored, target=st.sampled_from([0.0, 0.5, 0.7, 0.9, 0.95, 1.0]))
def test_coverage_at_accuracy_tries_every_threshold(rows: Rows, target: float) -> None:
    u, wrong = arrays(rows)
    exact = Fraction(str(target))
    coverages = [0.0]
    for threshold in u:
        kept = u <= threshold
        if Fraction(int((kept & ~wrong).sum()), int(kept.sum())) >= exact:
            coverages.append(kept.sum() / len(u))
    assert coverage_at_accuracy(u, wrong, target) == max(coverages)


@given(rows=scored)
def test_augrc_is_the_mean_share_of_images_that_are_kept_and_wrong(rows: Rows) -> None:
    u, wrong = arrays(rows)
    coverage, risk = risk_coverage_curve(u, wrong)
    assert augrc(u, wrong, "toy") == pytest.approx(np.mean(coverage * risk), abs=1e-15)
    constant = augrc(np.zeros(len(u)), wrong, "toy")
    assert constant == pytest.approx(wrong.mean() * (len(u) + 1) / (2 * len(u)), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_changes_under_increasing_maps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    level, wrong = rng.integers(0, 40, 300), rng.random(300) < 0.3

    def values(u: np.ndarray) -> list[float]:
        return [metric(u, wrong, "toy") for metric in (aurc, excess_aurc, augrc)] + [
            coverage_at_accuracy(u, wrong, 0.75)
        ]

    expected = values(level.astype(np.float32))
    for image in (1e8 + level, 1e-30 * (level + 1), np.exp(level - 30.0), np.sort(rng.normal(size=40))[level]):
        assert values(image) == expected


def test_nan_names_the_row() -> None:
    u, wrong = np.array([0.0, 1.0, np.nan, 3.0]), np.array([False, True, False, True])
    for metric in (aurc, excess_aurc, augrc):
        with pytest.raises(PipelineError, match=r"digits/test is NaN in row 2 "):
            metric(u, wrong, "digits/test")
    with pytest.raises(PipelineError, match="row 2"):
        risk_coverage_curve(u, wrong)
    with pytest.raises(PipelineError, match="row 2"):
        coverage_at_accuracy(u, wrong, 0.9)
