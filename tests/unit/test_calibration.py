"""Calibration and risk control on worlds of known truth, against definitions spelt out, and their guarantees."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from pipeline_lib import __main__ as cli
from pipeline_lib.calibration.calibrator import Calibrator
from pipeline_lib.calibration.reliability import calibration_errors, reliability_bins
from pipeline_lib.calibration.risk_control import candidate_thresholds, conformal_risk_control, learn_then_test
from pipeline_lib.calibration.simulation import simulate
from pipeline_lib.core.artefacts import canonical_json, read
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Job
from pipeline_lib.evaluation.metric_rows import Value, metric_rows
from pipeline_lib.evaluation.scores import write_evaluation
from pipeline_lib.evaluation.spec import EvaluationSpec


def truth(u: np.ndarray) -> np.ndarray:
    """P(wrong | u) of the world below."""
    return 1 / (1 + np.exp(-2 * (u - 2)))


def world(seed: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    u = rng.gamma(2.0, size=images)
    return u, rng.random(images) < truth(u)


@pytest.mark.parametrize("kind", ["isotonic", "logistic", None])
def test_a_fit_recovers_the_probability_of_being_wrong(kind: str | None) -> None:
    u, wrong = world(0, 4000)
    calibrator = Calibrator.fit(u, wrong, kind)
    grid = np.linspace(0.3, 4, 50)
    assert np.abs(calibrator.predict(grid) - truth(grid)).mean() < 0.03
    assert (np.diff(calibrator.predict(np.linspace(-9, 99, 200))) >= 0).all()
    assert ((calibrator.predict(np.array([-1e9, 1e9])) - 0.5) * [-1, 1] > 0).all()
    assert (calibrator.images, calibrator.wrong) == (4000, wrong.sum())
    scores = calibrator.cross_validated
    assert scores["logistic"].log_loss < scores["constant"].log_loss
    if kind is None:
        assert calibrator.kind == min(("logistic", "isotonic"), key=lambda name: scores[name].log_loss)


def test_cross_validated_scores_are_what_comes_true_and_the_fit_on_its_own_images_is_not() -> None:
    """An isotonic map learned from 100 images looks perfect on them; its folds tell what others will see."""
    u, wrong = world(1, 100)
    calibrator = Calibrator.fit(u, wrong, "isotonic")
    own = calibration_errors(calibrator.predict(u), wrong)
    new_u, new_wrong = world(2, 50_000)
    new = calibration_errors(calibrator.predict(new_u), new_wrong)
    told = calibrator.cross_validated["isotonic"]
    assert own.log_loss < 0.9 * new.log_loss
    assert abs(told.log_loss - new.log_loss) < abs(own.log_loss - new.log_loss)


def test_the_kind_that_fits_better_is_chosen() -> None:
    rng = np.random.default_rng(0)
    u = rng.random(3000)
    step = rng.random(3000) < np.where(u < 0.5, 0.05, 0.5)
    assert Calibrator.fit(u, step).kind == "isotonic"
    smooth = rng.random(3000) < 1 / (1 + np.exp(-4 * (u - 0.5)))
    assert Calibrator.fit(u, smooth).kind == "logistic"


def test_probabilities_do_not_claim_more_than_the_images_tell() -> None:
    """u that tells all images apart leaves both maps finite and inside of (0, 1)."""
    u = np.arange(40.0)
    for kind in ("isotonic", "logistic"):
        predicted = Calibrator.fit(u, u >= 20, kind).predict(np.array([-100.0, 139.0]))
        assert 0 < predicted[0] < 0.5 < predicted[1] < 1


@pytest.mark.parametrize("kind", ["isotonic", "logistic"])
def test_a_saved_calibration_predicts_the_same(kind: str, tmp_path: Path) -> None:
    u, wrong = world(3, 200)
    calibrator = Calibrator.fit(u, wrong, kind)
    calibrator.save(tmp_path / "calibration.json")
    loaded = Calibrator.load(tmp_path / "calibration.json")
    np.testing.assert_array_equal(loaded.predict(u), calibrator.predict(u))
    assert loaded == calibrator


def test_a_file_that_is_no_calibration_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    for text in ("[1]", "{", '{"format": 1, "kind": "logistic"}', '{"format": 2}', '{"format": 1, "kind": "spline"}'):
        path.write_text(text)
        with pytest.raises(PipelineError, match=r"other\.json: is no calibration of format 2"):
            Calibrator.load(path)


def test_a_calibration_that_was_changed_by_a_digit_is_refused(tmp_path: Path) -> None:
    u, wrong = world(3, 200)
    path = tmp_path / "calibration.json"
    Calibrator.fit(u, wrong, "logistic").save(path)
    text = path.read_text()
    value = text.partition('"slope": ')[2].partition(",")[0]
    for changed in (value[:-1] + str((int(value[-1]) + 1) % 10), "NaN", "Infinity", "null"):
        path.write_text(text.replace(value, changed))
        with pytest.raises(PipelineError, match=r"calibration\.json: is no calibration of format 2, or was changed"):
            Calibrator.load(path)
    path.write_text(text)
    Calibrator.load(path)


def test_labels_that_are_neither_true_nor_false_are_refused() -> None:
    u, wrong = world(0, 200)
    for value in (np.nan, 0.5, 2):
        with pytest.raises(PipelineError, match="in row 7, but must be true or false"):
            Calibrator.fit(u, np.where(np.arange(200) == 7, value, wrong.astype(float)))
    assert Calibrator.fit(u, wrong.astype(int)) == Calibrator.fit(u, wrong)


def test_images_that_can_not_be_learned_from_are_refused() -> None:
    u, wrong = world(0, 50)
    cases = [
        (lambda: Calibrator.fit(u, np.zeros(50, bool)), "of 50 labelled images 0 are wrong"),
        (lambda: Calibrator.fit(u, wrong, folds=40), "but each of 40 folds"),
        (lambda: Calibrator.fit(u[:9], wrong), "both must be"),
        (lambda: Calibrator.fit(np.where(u == u[7], np.nan, u), wrong), "NaN in row 7"),
        (lambda: Calibrator.fit(np.where(u == u[7], np.inf, u), wrong), "infinite in row 7"),
        (lambda: Calibrator.fit(u, wrong, "spline"), "kind 'spline' is unknown"),
        (lambda: conformal_risk_control(u, wrong, 0), "alpha is 0"),
        (lambda: conformal_risk_control(u[:0], wrong[:0], 0.1), "at least one image"),
        (lambda: learn_then_test(u, wrong, np.array([1.0]), 0.1, 1.0), "confidence is 1.0"),
        (lambda: learn_then_test(u, wrong, np.array([2.0, 1.0]), 0.1, 0.9), "ascending"),
        (lambda: candidate_thresholds(u[:0]), "there are none"),
        (lambda: learn_then_test(u, np.where(wrong, np.nan, 0), np.array([1.0]), 0.1, 0.9), "wrong is .*nan.* in row"),
    ]
    for call, message in cases:
        with pytest.raises(PipelineError, match=message):
            call()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=60), st.integers(1, 12))
def test_bins_hold_images_of_neighbouring_probability(images: list[tuple[int, bool]], bins: int) -> None:
    probability, wrong = np.array([p for p, _ in images]) / 10, np.array([w for _, w in images])
    binned = reliability_bins(probability, wrong, bins)
    assert binned.images.sum() == len(images) and len(binned.images) <= bins
    assert (np.diff(binned.probability) > 0).all()
    assert ((binned.low <= binned.wrong) & (binned.wrong <= binned.high)).all()
    start = 0
    ordered = np.sort(probability)
    for place, count in enumerate(binned.images):
        mine = ordered[start : start + count]
        assert binned.probability[place] == pytest.approx(mine.mean())
        members = (probability >= mine[0]) & (probability <= mine[-1])
        assert members.sum() == count  # equal probabilities share a bin
        assert binned.wrong[place] == pytest.approx(wrong[members].mean())
        start += count
    gap = sum(n * abs(p - w) for n, p, w in zip(binned.images, binned.probability, binned.wrong, strict=True))
    scores = calibration_errors(probability, wrong, bins)
    assert scores.expected_calibration_error == pytest.approx(gap / len(images))
    assert scores.brier == pytest.approx(np.mean([(p / 10 - w) ** 2 for p, w in images]))
    assert scores.log_loss == pytest.approx(np.mean([-math.log(p / 10 if w else 1 - p / 10) for p, w in images]))


def test_the_debiased_error_is_near_zero_for_perfect_probabilities_and_right_for_wrong_ones() -> None:
    rng = np.random.default_rng(5)
    probability = rng.uniform(0.1, 0.7, 3000)
    wrong = rng.random(3000) < probability
    perfect, shifted = calibration_errors(probability, wrong), calibration_errors(probability + 0.2, wrong)
    assert perfect.debiased_calibration_error < perfect.expected_calibration_error < 0.04
    assert shifted.expected_calibration_error == pytest.approx(0.2, abs=0.02)
    assert shifted.debiased_calibration_error == pytest.approx(0.2, abs=0.02)


def binomial_tail(errors: int, images: int, alpha: Fraction) -> Fraction:
    """P(Binomial(images, alpha) <= errors), exactly."""
    terms = [math.comb(images, e) * alpha**e * (1 - alpha) ** (images - e) for e in range(errors + 1)]
    return sum(terms, Fraction(0))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), min_size=1, max_size=50), st.integers(1, 30))
def test_learn_then_test_equals_its_algorithm_in_exact_arithmetic(images: list[tuple[int, int]], count: int) -> None:
    u, wrong = np.array([u for u, _ in images], float), np.array([w == 0 for _, w in images])
    thresholds = np.arange(count) * 20.0 / count
    best = -math.inf
    start = max(0.3, 1.5 * math.log(0.4) / math.log(0.7) / len(images))
    for t in thresholds[min(count - 1, int(start * count)) :]:
        accepted = u <= t
        p = binomial_tail(int(wrong[accepted].sum()), int(accepted.sum()), Fraction(3, 10))
        if p > Fraction(2, 5):
            break
        best = float(t)
    assert learn_then_test(u, wrong, thresholds, 0.3, 0.6) == best


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=40),
    st.sampled_from([1, 5, 10, 29, 50, 90]),
)
def test_conformal_risk_control_takes_the_largest_threshold_that_meets_its_bound(
    images: list[tuple[int, bool]], percent: int
) -> None:
    u, wrong = np.array([u for u, _ in images], float), np.array([w for _, w in images])

    def meets(t: float) -> bool:
        return Fraction(int((wrong & (u <= t)).sum()) + 1, len(u) + 1) <= Fraction(percent, 100)

    threshold = conformal_risk_control(u, wrong, percent / 100)
    assert threshold == -math.inf or meets(threshold)
    above = [t for t in [*np.unique(u), math.inf] if t > threshold]
    assert not any(meets(t) for t in above)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_threshold_keeps_its_bound_in_the_type_of_the_uncertainties(dtype: type) -> None:
    """`u <= t` rounds t to the type of u; neighbours of that type have nothing between them."""
    u = np.linspace(0.5, 1.5, 99).astype(dtype)
    wrong = np.arange(99) % 4 == 0
    wrong[1:] |= np.random.default_rng(0).random(98) < 0.5
    threshold = conformal_risk_control(u, wrong, 0.2)
    assert (wrong & (u <= threshold)).sum() == 19  # floor(0.2 * 100) - 1
    assert threshold == conformal_risk_control(u.astype(np.float64), wrong, 0.2), "also where u was widened"
    assert threshold == conformal_risk_control(u.tolist(), wrong.tolist(), 0.2), "and as lists"
    assert set(candidate_thresholds(u)) <= set(u.astype(np.float64))


def test_a_candidate_counts_the_images_that_it_accepts_in_the_type_of_the_uncertainties() -> None:
    """Just below the u of the wrong images is, in float32, that u itself."""
    u = np.repeat(np.array([1, 2], np.float32), 100)
    threshold = learn_then_test(u, u == 2, np.array([1, np.nextafter(2.0, 1.0)]), 0.1, 0.9)
    assert (u <= threshold).sum() == 100


def test_thresholds_keep_their_word_over_a_thousand_draws() -> None:
    """A world whose P(wrong | u <= t) is known exactly, and whose error falls and rises again with the threshold."""
    grid = np.arange(1, 21)
    p_wrong = np.where(grid == 1, 0.3, 0.02 + 0.4 * (grid / 20) ** 3)
    selective, joint = np.cumsum(p_wrong) / grid, np.cumsum(p_wrong) / 20
    assert np.diff(selective).min() < 0 < np.diff(selective).max()
    alpha, confidence = 0.1, 0.8
    rng = np.random.default_rng(7)
    above, expected, accepted = 0, [], []
    for _ in range(1000):
        u = rng.integers(1, 21, 400)
        wrong = rng.random(400) < p_wrong[u - 1]
        tested = learn_then_test(u.astype(float), wrong, grid.astype(float), alpha, confidence)
        accepted.append(0 if tested == -math.inf else int(tested))
        above += bool(accepted[-1] and selective[accepted[-1] - 1] > alpha)
        conformal = conformal_risk_control(u.astype(float), wrong, alpha)
        expected.append(joint[int(min(20, conformal)) - 1] if conformal >= 1 else 0.0)
    # Three standard deviations of 1,000 draws.
    assert above / 1000 <= 1 - confidence + 3 * math.sqrt(confidence * (1 - confidence) / 1000)
    assert np.mean(expected) <= alpha + 3 * np.std(expected) / math.sqrt(1000)
    # Neither is safe by accepting next to nothing.
    assert np.mean(accepted) > 6
    assert np.mean(expected) > alpha - 0.02


def test_two_hundred_labels_accept_what_they_can_and_keep_their_word() -> None:
    rng = np.random.default_rng(0)
    u = rng.normal(size=20_000)
    wrong = rng.random(20_000) < 1 / (1 + np.exp(2 - 1.5 * u))
    drawn = simulate(u, wrong, 200, 0.1, 0.9, 1000, 0)
    assert drawn.learn_then_test_accepted.mean() > 0.4
    assert (drawn.learn_then_test > 0.1).mean() <= 0.1 + 3 * math.sqrt(0.09 / 1000)
    few = simulate(u, wrong, 50, 0.1, 0.9, 1000, 0)
    assert few.learn_then_test_accepted.mean() > 0.05, "starts where a test can be passed at all"
    assert (few.learn_then_test > 0.1).mean() <= 0.1 + 3 * math.sqrt(0.09 / 1000)


def test_a_useless_uncertainty_accepts_nothing_and_a_perfect_one_almost_all_right_images() -> None:
    rng = np.random.default_rng(8)
    wrong = rng.random(2000) < 0.4
    useless = simulate(rng.random(2000), wrong, 300, 0.1, 0.9, 100, 0)
    assert (useless.learn_then_test_accepted == 0).mean() >= 0.9
    perfect = simulate(wrong + rng.random(2000) / 2, wrong, 300, 0.1, 0.9, 100, 0)
    assert perfect.learn_then_test_accepted.mean() > 0.55
    assert (perfect.learn_then_test > 0.1).mean() <= 0.1


INPUTS = {"baselines": "baselines", "scores": "evaluate_heads", "upstream": "upstream"}


def _calibrate(folder: Path, u: dict[int, np.ndarray], wrong: np.ndarray, **changes: object) -> int:
    """Run the stage on heads with these uncertainties; returns its exit code."""
    spec = {"backbone": "b", "dataset": "birds", "split": "test", "variant": "v"}
    sample_id, about = np.arange(len(wrong)), EvaluationSpec(**spec, is_upstream=False)
    of_heads = {f"uncertainty_seed{seed}": values for seed, values in u.items()}
    rows = metric_rows(about, "head", None, {"r1": Value(0.5, 1)})
    for stage, columns in (("baselines", {"correct": ~wrong}), ("evaluate_heads", of_heads)):
        write_evaluation(Job(stage, about, {}, folder / stage), {"sample_id": sample_id, **columns}, rows)
    spec |= {"seeds": list(u), "look": {"width": 4.5, "height": 3.8, "dpi": 80, "title": True}}
    spec["calibration"] = {"images": 300, "seed": 1, "bins": 8, "draws": 50} | changes
    upstream = EvaluationSpec(backbone="b", dataset="up", split="test", variant="v", is_upstream=True)
    write_evaluation(
        Job("evaluate_heads", upstream, {}, folder / "upstream"), {"sample_id": sample_id, **of_heads}, rows
    )
    folders = [f"--{name}={folder / path}" for name, path in INPUTS.items()]
    return cli.main(["calibrate", "--spec", canonical_json(spec), *folders, "--output", str(folder / "out")])


@pytest.mark.slow
def test_the_stage_writes_a_calibration_per_seed_and_checks_it_on_the_other_images(tmp_path: Path) -> None:
    u, wrong = world(9, 1000)
    heads = {4: u, 7: np.random.default_rng(0).random(1000)}
    assert _calibrate(tmp_path, heads, wrong) == 0
    read(tmp_path / "out", "calibrate")
    assert (tmp_path / "out" / "reliability.png").stat().st_size > 5000
    assert (tmp_path / "out" / "reliability.pdf").read_bytes().startswith(b"%PDF")
    calibrator = Calibrator.load(tmp_path / "out" / "calibration_seed4.json")
    assert calibrator.images == 300
    together = Calibrator.load(tmp_path / "out" / "calibration.json")
    assert calibrator.cross_validated["constant"] == together.cross_validated["constant"]
    assert calibrator.cross_validated["logistic"].log_loss < together.cross_validated["logistic"].log_loss
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    scores = scores[scores["images"] == "others"].set_index(["heads", "map"])
    assert set(scores.index.get_level_values("heads")) == {"all", "seed4", "seed7"}
    assert scores.loc[("seed4", calibrator.kind), "n"] == 700
    assert scores.loc[("seed4", calibrator.kind), "log_loss"] < 0.9 * scores.loc[("seed4", "constant"), "log_loss"]
    thresholds = pd.read_csv(tmp_path / "out" / "thresholds.csv").set_index(["heads", "method"])
    tested = thresholds.loc[("seed4", "learn_then_test")]
    accepted = u <= tested["threshold"]
    assert 0.3 < tested["accepted"] < 0.9 and wrong[accepted].mean() < 0.2
    assert thresholds.loc[("seed7", "learn_then_test"), "threshold"] == -math.inf
    assert (thresholds["simulated_draws"] == 50).all()
    bins = pd.read_csv(tmp_path / "out" / "reliability.csv")
    assert bins[bins["heads"] == "seed4"]["images"].sum() == 700
    assert _calibrate(tmp_path, heads, wrong, images=600) == 1  # fewer are left to test on


@pytest.mark.slow
def test_the_simulated_columns_are_the_truth_over_a_thousand_draws(tmp_path: Path) -> None:
    """Of 1,000 images, 100 are drawn with replacement; uncertainties are distinct."""
    images, alpha, confidence, draws = 100, 0.3, 0.9, 1000
    u, wrong = world(9, 1000)
    assert _calibrate(tmp_path, {4: u}, wrong, images=images, alpha=alpha, draws=draws) == 0
    thresholds = pd.read_csv(tmp_path / "out" / "thresholds.csv").set_index("method")
    thresholds = thresholds[thresholds["heads"] == "seed4"]
    assert (thresholds["simulated_draws"] == draws).all()

    # Conformal: with k wrong images allowed, at least the j most certain wrong ones of all are accepted at the most if
    # at most k draws fall on them; so the distribution of the largest possible error is known exactly.
    allowed, rank = math.floor(alpha * (images + 1)) - 1, np.arange(1, wrong.sum() + 1)
    at_least = binom.cdf(allowed, images, rank / 1000)
    largest = at_least.sum() / 1000
    conformal = thresholds.loc["conformal_risk_control"]
    assert largest <= alpha
    assert conformal["simulated_error"] <= largest + 4 * math.sqrt(0.25 / draws) / math.sqrt(images)

    # By draws of our own: conformal as its inequality says, for every drawn u in turn; both errors image by image.
    rng, candidates = np.random.default_rng(11), candidate_thresholds(u)
    own: dict[str, list[tuple[float, float]]] = {"conformal_risk_control": [], "learn_then_test": []}
    for _ in range(draws):
        row = rng.integers(0, 1000, images)
        kept = [t for t in u[row] if ((u[row] <= t) & wrong[row]).sum() + 1 <= alpha * (images + 1)]
        accepted = u <= (max(kept, default=-math.inf) if len(kept) < images else math.inf)
        own["conformal_risk_control"].append((accepted.mean(), (wrong & accepted).mean()))
        accepted = u <= learn_then_test(u[row], wrong[row], candidates, alpha, confidence)
        own["learn_then_test"].append((accepted.mean(), wrong[accepted].mean() if accepted.any() else 0.0))
    for method, pairs in own.items():
        means, deviations = np.mean(pairs, axis=0), np.std(pairs, axis=0) * math.sqrt(2 / draws)
        assert abs(thresholds.loc[method, "simulated_accepted"] - means[0]) <= 4 * deviations[0], method
        assert abs(thresholds.loc[method, "simulated_error"] - means[1]) <= 4 * deviations[1], method
    tested = thresholds.loc["learn_then_test"]
    most = 1 - confidence + 3 * math.sqrt(confidence * (1 - confidence) / draws)
    assert 0 < tested["simulated_above_alpha"] <= most
    assert tested["simulated_accepted"] > 0.5, "it is not safe by accepting next to nothing"
