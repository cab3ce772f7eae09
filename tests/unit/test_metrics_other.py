"""Recall, accuracy, correlations and distributions against loops, SciPy and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import roc_auc_score

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.metrics.crops import crop_correlation, crop_has_bigger_uncertainty
from pipeline_lib.metrics.distribution import METRICS as DISTRIBUTION
from pipeline_lib.metrics.ranks import average_ranks, spearman
from pipeline_lib.metrics.representation.top_k import top_k_accuracy
from pipeline_lib.metrics.retrieval import neighbour_is_correct, recall_at_1
from pipeline_lib.metrics.votes import auroc_not_dirac, vote_entropy_correlation
from pipeline_lib.retrieval.store import lone_class_images


def distribution(uncertainty: np.ndarray) -> dict[str, float]:
    known = {"uncertainty": uncertainty, "dataset": "toy"}
    values = [metric.values(known, len(uncertainty)) for metric in DISTRIBUTION]
    return {name: value.value for found in values for name, value in found.items()}


@given(labels=st.lists(st.integers(0, 5), min_size=2, max_size=30), data=st.data())
def test_recall_and_lone_classes_equal_a_loop(labels: list[int], data: st.DataObject) -> None:
    others = [[j for j in range(len(labels)) if j != i] for i in range(len(labels))]
    neighbour = [data.draw(st.sampled_from(each)) for each in others]
    correct = neighbour_is_correct(np.array(labels), np.array(neighbour))
    assert correct.tolist() == [labels[j] == label for label, j in zip(labels, neighbour, strict=True)]
    assert recall_at_1(correct) == pytest.approx(sum(correct.tolist()) / len(labels))
    lone = [label for label in labels if labels.count(label) == 1]
    assert lone_class_images(np.array(labels)) == len(lone)
    assert not any(ok for ok, label in zip(correct, labels, strict=True) if label in lone)


def test_top_k_accuracy_counts_classes_scored_higher() -> None:
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(200, 9)), rng.integers(0, 9, 200)
    label_rank = (logits > logits[np.arange(200), label][:, None]).sum(axis=1)
    for k in (1, 5):
        best = np.argsort(-logits, axis=1)[:, :k]
        assert top_k_accuracy(label_rank, k) == np.mean([label[i] in best[i] for i in range(200)])


@pytest.mark.parametrize("seed", range(5))
def test_spearman_equals_scipy_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 12, 300).astype(np.float32)
    second = first + rng.integers(0, 12, 300)
    expected = spearmanr(first, second).statistic
    assert spearman(first, second, "toy") == pytest.approx(expected, abs=1e-12)
    assert spearman(1e8 + first.astype(np.float64), 1e-30 * second, "toy") == pytest.approx(expected, abs=1e-12)


@given(
    values=st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=40),
    copies=st.lists(st.integers(0, 39), max_size=10),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_average_ranks_equal_scipy_at_every_magnitude(values: list[float], copies: list[int], dtype: type) -> None:
    u = np.array([*values, *(values[place % len(values)] for place in copies)], dtype)
    np.testing.assert_array_equal(average_ranks(u), rankdata(u, method="average"))


def test_images_on_which_voters_differ_are_told_from_those_on_which_they_agree() -> None:
    rng = np.random.default_rng(0)
    uncertainty = rng.normal(size=200).astype(np.float32)
    entropy = np.where(rng.random(200) < 0.4, 0.0, rng.random(200))
    expected = roc_auc_score(entropy[30:] > 0, uncertainty[30:])
    entropy[:30] = np.nan
    assert auroc_not_dirac(uncertainty, entropy, "toy") == (pytest.approx(expected, abs=1e-12), 170)
    with pytest.warns(UserWarning, match="blend/test"):
        assert np.isnan(auroc_not_dirac(uncertainty, np.zeros(200), "blend/test").value)


def test_images_without_votes_are_left_out() -> None:
    rng = np.random.default_rng(0)
    uncertainty, entropy = rng.normal(size=100), rng.random(100)
    without = rng.random(100) < 0.3
    expected = spearmanr(uncertainty[~without], entropy[~without]).statistic
    entropy[without] = np.nan
    expected_value = pytest.approx(expected, abs=1e-12)
    assert vote_entropy_correlation(uncertainty, entropy, "toy") == (expected_value, int((~without).sum()))


def test_crop_correlation_is_one_when_smaller_crops_are_more_uncertain() -> None:
    fraction = np.linspace(0.1, 0.75, 20)
    assert crop_correlation(np.exp(-5 * fraction), fraction, "toy") == pytest.approx(1)
    assert crop_correlation(fraction, fraction, "toy") == pytest.approx(-1)


def test_correlation_with_a_constant_is_nan_with_a_warning_that_names_the_dataset() -> None:
    with pytest.warns(UserWarning, match="blend/test"):
        assert np.isnan(spearman(np.arange(5.0), np.ones(5), "blend/test"))
    with pytest.warns(UserWarning, match="blend/test"):
        assert np.isnan(vote_entropy_correlation(np.arange(5.0), np.full(5, np.nan), "blend/test").value)


def test_nan_uncertainty_is_an_error_everywhere() -> None:
    uncertainty = np.array([0.0, 1.0, np.nan])
    with pytest.raises(PipelineError, match="row 2"):
        spearman(uncertainty, np.arange(3.0), "toy")
    with pytest.raises(PipelineError, match="row 2"):
        distribution(uncertainty)


def test_only_a_strictly_larger_uncertainty_of_the_crop_counts() -> None:
    whole, crops = np.array([1.0, 1.0, 1.0, 1.0]), np.array([1.0, 2.0, 0.5, 1.5])
    assert crop_has_bigger_uncertainty(whole, crops, "toy") == 0.5
    crops[2] = np.nan
    with pytest.raises(PipelineError, match=r"crops of toy.*row 2"):
        crop_has_bigger_uncertainty(whole, crops, "toy")


def test_distribution_equals_sorted_values() -> None:
    uncertainty = np.random.default_rng(0).permutation(101).astype(np.float32)
    assert distribution(uncertainty) == {
        "min_unc": 0,
        "avg_unc": 50,
        "max_unc": 100,
        "unc_q10": 10,
        "unc_q25": 25,
        "unc_q50": 50,
        "unc_q75": 75,
        "unc_q90": 90,
        "unc_iqr_90_10": 80,
        "unc_iqr_75_25": 50,
    }
