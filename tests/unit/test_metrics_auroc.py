"""AUROC and its bootstrap against independent computations."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from pipeline_lib.config.evaluation import Bootstrap
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.metrics.auroc import auroc
from pipeline_lib.metrics.bootstrap import (
    Resampling,
    bootstrap_auroc,
    bootstrap_recall_at_1,
    percentile_interval,
)
from pipeline_lib.metrics.ood import auroc_ood


def by_pairs(uncertainty: np.ndarray, is_positive: np.ndarray) -> float:
    """Count, pair by pair, how often a positive is above a negative."""
    pairs = list(itertools.product(uncertainty[is_positive], uncertainty[~is_positive]))
    return sum(1.0 if high > low else 0.5 if high == low else 0.0 for high, low in pairs) / len(pairs)


def both_kinds(labels: list[bool]) -> bool:
    return any(labels) and not all(labels)


scored = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: both_kinds([positive for _, positive in rows])
)


@given(rows=scored)
def test_auroc_counts_pairs_with_ties_one_half(rows: list[tuple[int, bool]]) -> None:
    uncertainty = np.array([u for u, _ in rows], np.float32)
    is_positive = np.array([positive for _, positive in rows])
    assert auroc(uncertainty, is_positive, "toy") == pytest.approx(by_pairs(uncertainty, is_positive), abs=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(5))
def test_auroc_equals_sklearn(seed: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    uncertainty = np.exp(rng.normal(size=3000) * 10 ** rng.uniform(0, 1)).astype(dtype)
    uncertainty[rng.integers(0, 3000, 900)] = uncertainty[rng.integers(0, 3000, 900)]
    is_positive = rng.random(3000) < 0.3
    assert abs(auroc(uncertainty, is_positive, "toy") - roc_auc_score(is_positive, uncertainty)) < 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_auroc_does_not_change_under_increasing_maps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    level = rng.integers(0, 50, 400)
    is_positive = rng.random(400) < 0.4
    expected = auroc(level.astype(np.float64), is_positive, "toy")
    for image in (
        1e8 + level,
        1e8 * (level + 1.0) ** 3,
        1e-30 * (level + 1),
        np.exp(level * 2.0 - 60),
        np.sort(rng.normal(size=50))[level],
    ):
        assert auroc(image, is_positive, "toy") == expected
    assert auroc((1e-30 * (level + 1)).astype(np.float32), is_positive, "toy") == expected
    assert auroc(-level.astype(np.float64), is_positive, "toy") == pytest.approx(1 - expected, abs=1e-15)


def test_constant_uncertainty_gives_one_half() -> None:
    assert auroc(np.full(7, 1e8, np.float32), np.array([1, 0, 0, 1, 1, 0, 0], bool), "toy") == 0.5


@pytest.mark.parametrize("label", [True, False])
def test_one_sided_labels_give_nan_and_a_warning_that_names_the_dataset(label: bool) -> None:
    with pytest.warns(UserWarning, match="digits/test"):
        assert np.isnan(auroc(np.arange(4.0), np.full(4, label), "digits/test"))


def test_nan_names_the_dataset_and_the_row() -> None:
    uncertainty = np.arange(9.0)
    uncertainty[5] = np.nan
    with pytest.raises(PipelineError, match=r"digits/test is NaN in row 5 "):
        auroc(uncertainty, np.arange(9) > 3, "digits/test")


@settings(max_examples=30)
@given(rows=scored, seed=st.integers(0, 1000), of_classes=st.booleans())
def test_bootstrap_auroc_equals_a_loop_over_the_same_resamples(
    rows: list[tuple[int, bool]], seed: int, of_classes: bool
) -> None:
    uncertainties = np.array([[u for u, _ in rows], [-abs(u) for u, _ in rows]], np.float64)
    is_positive = np.array([positive for _, positive in rows])
    resampling = Resampling(len(rows), 8, seed, np.arange(len(rows)) // 3 if of_classes else None)
    values = bootstrap_auroc(uncertainties, is_positive, resampling)
    assert values.shape == (2, 8)
    for position, counts in enumerate(resampling.counts()):
        drawn = np.repeat(np.arange(len(rows)), counts)
        assert of_classes or len(drawn) == len(rows)
        for uncertainty, value in zip(uncertainties, values[:, position], strict=True):
            if both_kinds(is_positive[drawn].tolist()):
                assert value == pytest.approx(by_pairs(uncertainty[drawn], is_positive[drawn]), abs=1e-14)
            else:
                assert np.isnan(value)


def test_few_classes_are_resampled_to_the_same_bytes_as_many() -> None:
    """Where there are more classes than resamples, each resample goes over all images."""
    rng = np.random.default_rng(0)
    class_of, is_positive = rng.integers(0, 20, 500), rng.random(500) < 0.3
    for uncertainties in (rng.random((2, 500)), rng.integers(0, 30, (2, 500)).astype(np.float64)):
        few = bootstrap_auroc(uncertainties, is_positive, Resampling(500, 40, 1, class_of))
        many = bootstrap_auroc(uncertainties, is_positive, Resampling(500, 19, 1, class_of))
        assert few[:, :19].tobytes() == many.tobytes()


def test_bootstrap_recall_equals_a_loop_over_the_same_resamples() -> None:
    correct = np.random.default_rng(0).random(50) < 0.7
    for class_of in (None, np.arange(50) // 4):
        resampling = Resampling(50, 20, 3, class_of)
        values = bootstrap_recall_at_1(correct, resampling)
        expected = [correct[np.repeat(np.arange(50), counts)].mean() for counts in resampling.counts()]
        np.testing.assert_allclose(values, expected, atol=1e-15)


def test_whole_classes_are_drawn_where_there_are_ten_or_the_config_asks_for_them() -> None:
    label = np.arange(60) % 12 * 7  # labels need not be dense
    drawn = Resampling.of(Bootstrap(), 60, label)
    assert drawn.classes == 12
    for counts in drawn.counts():
        assert len(set(zip(label, counts, strict=True))) == 12, "images of one class are drawn together"
        assert counts.sum() == 60
    assert Resampling.of(Bootstrap(), 60, label % 9).classes == 0
    assert Resampling.of(Bootstrap(), 60, None).classes == 0
    assert Resampling.of(Bootstrap(unit="images"), 60, label).classes == 0
    assert Resampling.of(Bootstrap(unit="classes"), 60, label % 9).classes == len(set(label % 9))


def test_bootstrap_is_a_function_of_its_seed() -> None:
    rng = np.random.default_rng(0)
    uncertainty, is_positive = rng.normal(size=(1, 200)), rng.random(200) < 0.5
    first = bootstrap_auroc(uncertainty, is_positive, Resampling(200, 30, 1))
    np.testing.assert_array_equal(first, bootstrap_auroc(uncertainty, is_positive, Resampling(200, 30, 1)))
    assert not np.array_equal(first, bootstrap_auroc(uncertainty, is_positive, Resampling(200, 30, 2)))


def test_interval_covers_the_true_value_about_as_often_as_it_says() -> None:
    # u is N(1, 1) for positives and N(0, 1) for negatives, so AUROC is Phi(1 / sqrt 2).
    truth = 0.7602499389065233
    rng = np.random.default_rng(0)
    is_positive = np.arange(300) < 100
    covered = 0
    for _ in range(100):
        uncertainty = rng.normal(size=(1, 300)) + is_positive
        low, high = percentile_interval(bootstrap_auroc(uncertainty, is_positive, Resampling(300, 200, 0))[0], 0.9)
        covered += low <= truth <= high
    assert 80 <= covered <= 98


def test_undefined_resamples_are_left_out_of_the_interval() -> None:
    assert percentile_interval(np.array([0.0, np.nan, 1.0, np.nan]), 0.5) == (0.25, 0.75)
    assert np.isnan(percentile_interval(np.full(3, np.nan), 0.95)).all()


def test_auroc_ood_uses_every_image_of_both_sets() -> None:
    rng = np.random.default_rng(0)
    upstream, downstream = rng.normal(size=5000), rng.normal(size=400) + 1
    together, is_downstream = np.concatenate([upstream, downstream]), np.arange(5400) >= 5000
    assert auroc_ood(upstream, downstream, "toy") == (auroc(together, is_downstream, "toy"), 5400)
    assert auroc_ood(upstream, np.full(3, 100.0), "toy") == (1.0, 5003)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert auroc_ood(downstream, downstream, "toy") == (0.5, 800)
