"""Each figure shows what the numbers say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from pipeline_lib.figures import (
    densities,
    deteriorations,
    examples,
    human_ambiguity,
    joint_training,
    projection,
    recall_vs_auroc,
    risk_coverage,
    safe_retrieval_surface,
    worst_queries,
    zero_shot,
)
from pipeline_lib.figures.density import density, shown_range
from pipeline_lib.tables.summary import EvaluationSet, read_metrics, typical_seed
from tests.unit.drawings import (
    BACKBONES,
    DOWNSTREAM,
    KINDS,
    SEEDS,
    STEPS,
    UPSTREAM,
    all_text,
    auroc,
    draw_ambiguity,
    draw_densities,
    draw_safe_curves,
    draw_zero_shot,
    drawn,
    make_coordinates,
    make_deteriorated,
    make_images,
    make_joint_curves,
    make_metrics,
    make_not_dirac,
    make_rises,
    make_scores,
    make_selection,
    make_surfaces,
    make_votes,
)
from tests.unit.test_tables import PUBLISHED

SHARES = np.arange(11) / 20


def line(axes: Axes, gid: str) -> np.ndarray:
    return np.asarray(next(curve for curve in axes.lines if curve.get_gid() == gid).get_ydata())


# Zero-shot R-AUROC


def test_bars_reach_the_medians_and_whiskers_the_extremes() -> None:
    axes = drawn("zero_shot").axes[0]
    mean = {e: np.mean([np.median([auroc(b, e, s) for s in SEEDS]) for b in BACKBONES]) for e in DOWNSTREAM}
    order = [UPSTREAM, *sorted(DOWNSTREAM, key=mean.get, reverse=True)]
    labels = [label.get_text().splitlines()[0] for label in axes.get_xticklabels()]
    assert labels == [shown.dataset for shown in order]
    for backbone, bars, whiskers in zip(BACKBONES, axes.containers[::2], axes.containers[1::2], strict=True):
        values = np.array([[auroc(backbone, shown, seed) for seed in SEEDS] for shown in order])
        assert [bar.get_y() + bar.get_height() for bar in bars] == pytest.approx(list(np.median(values, axis=1)))
        assert {bar.get_y() for bar in bars} == {0.5}
        ends = np.array([segment[:, 1] for segment in whiskers.lines[2][0].get_segments()])
        np.testing.assert_allclose(ends, np.stack([values.min(axis=1), values.max(axis=1)], axis=1))


def test_one_seed_has_no_whiskers() -> None:
    assert len(draw_zero_shot(DOWNSTREAM, BACKBONES, (1,)).axes[0].containers) == len(BACKBONES)


def test_bars_of_different_backbones_have_different_hatches() -> None:
    bars = [patch for patch in drawn("zero_shot").axes[0].patches if isinstance(patch, Rectangle)]
    assert len({bar.get_hatch() for bar in bars}) == len(BACKBONES)


# Recall@1 against R-AUROC


def test_points_are_the_seeds_of_each_backbone_and_variant() -> None:
    lines = {points.get_gid(): points for points in drawn("recall_vs_auroc").axes[0].lines if points.get_gid()}
    assert set(lines) == {f"{backbone}/{variant}" for backbone in BACKBONES for variant in ("default", "other")}
    expected = [np.mean([auroc("vit", shown, seed, "other") for shown in DOWNSTREAM]) for seed in SEEDS]
    assert list(lines["vit/other"].get_ydata()) == pytest.approx(expected)
    assert list(lines["vit/other"].get_xdata()) == [0.5] * len(SEEDS)
    assert lines["vit/default"].get_marker() != lines["vit/other"].get_marker()


def test_published_points_are_figure_4() -> None:
    published = read_metrics(PUBLISHED / "pretrained_uncertainties.csv")
    sets = [EvaluationSet(name, "test") for name in ("sop", "cub", "cars")]
    assert recall_vs_auroc.published_points(published, sets[:2]).empty
    points = recall_vs_auroc.published_points(published, sets)
    assert len(points) == 5 * 4 + 3 * 3
    base = points[(points["backbone"] == "vit_base_imagenet1k") & (points["variant"] == "loss_prediction")]
    assert sorted(zip(base["r1"], base["auroc_correct"], strict=True)) == [
        (0.5280, 0.5398),
        (0.5309, 0.5623),
        (0.5480, 0.5757),
    ]
    assert set(points.loc[points["backbone"] == "vit_tiny", "r1"]) == {0.352}


def test_published_values_stand_beside_their_own_sets_alone_named_by_model() -> None:
    published = read_metrics(PUBLISHED / "pretrained_uncertainties.csv")
    known, mine = ([EvaluationSet(name, "test") for name in names] for names in (("sop", "cub", "cars"), ("a", "b")))
    for draw in (
        lambda sets: recall_vs_auroc.draw(
            make_metrics(sets, BACKBONES, SEEDS), published, sets, BACKBONES, ["default"], 4.5, 3.4
        ),
        lambda sets: zero_shot.draw(
            make_metrics(sets, BACKBONES, SEEDS), published, UPSTREAM, sets, BACKBONES, "default", 6.75, 3.0
        ),
    ):
        assert "published: ViT-Base" in all_text(draw(known))
        assert "published" not in all_text(draw(mine))


# Densities


def test_nothing_of_a_density_is_cut_off() -> None:
    random = np.random.default_rng(0)
    for values in (random.normal(3.0, 0.5, 5_000), random.gamma(2.0, size=300), random.uniform(0, 1, 5_000)):
        low, high = shown_range([values], 0.005)
        _, height = density(values, low, high)
        assert height[-1] < 0.03 * height.max() and (height[0] < 0.03 * height.max() or low == 0)
        assert low >= 0 or values.min() < 0


def test_density_integrates_to_one_and_follows_the_data() -> None:
    uncertainty = np.random.default_rng(0).normal(3.0, 0.5, 20_000)
    position, height = density(uncertainty, 0.0, 6.0)
    assert np.sum(height) * (position[1] - position[0]) == pytest.approx(1.0, abs=1e-9)
    truth = np.exp(-0.5 * ((position - 3.0) / 0.5) ** 2) / (0.5 * np.sqrt(2 * np.pi))
    assert np.abs(height - truth).max() < 0.05 * truth.max()


def test_density_does_not_leak_below_the_lower_bound_of_u() -> None:
    uncertainty = np.random.default_rng(0).uniform(0.0, 1.0, 20_000)
    _, height = density(uncertainty, 0.0, 1.0)
    assert height == pytest.approx(np.ones_like(height), abs=0.15)


def test_typical_seed_has_the_median_auroc() -> None:
    metrics = make_metrics(DOWNSTREAM, BACKBONES, SEEDS)
    means = {seed: np.mean([auroc("vit", shown, seed) for shown in DOWNSTREAM]) for seed in SEEDS}
    assert typical_seed(metrics, DOWNSTREAM, "vit", "default") == sorted(means, key=means.get)[1]


def test_densities_print_the_auroc_of_each_pair() -> None:
    text = all_text(draw_densities(DOWNSTREAM, ["vit"], SEEDS))
    for shown in DOWNSTREAM:
        values = [auroc("vit", shown, seed) for seed in SEEDS]
        median = float(np.median(values))
        assert f"{median:.2f}±{max(median - min(values), max(values) - median):.2f}" in text


def test_a_collapsed_head_still_has_its_figures() -> None:
    scores = {("vit", shown): np.full(50, 0.7) for shown in [UPSTREAM, *DOWNSTREAM]}
    metrics = make_metrics(DOWNSTREAM, ["vit"], (1,))
    figure = densities.draw(metrics, scores, UPSTREAM, DOWNSTREAM, ["vit"], "default", 6.75, 3.4)
    low, high = figure.axes[0].get_xlim()
    assert low < 0.7 < high
    same = {key: np.full(30, 0.7) for key in make_deteriorated(30)}
    assert deteriorations.draw(same, {}, DOWNSTREAM, "resnet", "default", 3, 6.75, 3.0).axes[0].get_ylim()[0] < 0.7
    votes = {DOWNSTREAM[0]: (np.full(30, 0.7), np.arange(30) / 30)}
    figure = human_ambiguity.draw(make_not_dirac([]), votes, "resnet", "default", 3, 6.75, 3.0)
    assert figure.axes[0].get_xlim()[0] < 0.7


# Least and most uncertain images


def test_examples_are_the_extremes_in_order() -> None:
    found = examples.extremes(make_scores(50), make_images(50), "latin", 3)
    assert [image.getpixel((0, 0))[0] for image, _ in found.lowest] == [0, 1, 2]
    assert [image.getpixel((0, 0))[0] for image, _ in found.highest] == [47, 48, 49]
    assert [u for _, u in found.highest] == pytest.approx([1.5 * sample / 50 for sample in (47, 48, 49)])


def test_no_image_stands_on_both_sides() -> None:
    found = examples.extremes(make_scores(5), make_images(5), "latin", 4)
    shown = [image.getpixel((0, 0))[0] for image, _ in found.lowest + found.highest]
    assert shown == [0, 1, 3, 4]


def test_example_grid_has_every_image_once_from_left_to_right() -> None:
    cells = [axes for axes in drawn("examples").axes if axes.images]
    assert len(cells) == (1 + len(DOWNSTREAM)) * 4
    first_row = sorted(cells[:4], key=lambda axes: axes.get_position().x0)
    assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in first_row] == [0, 1, 18, 19]
    assert [float(axes.get_xlabel()) for axes in first_row] == sorted(float(axes.get_xlabel()) for axes in first_row)


# Training curves


def test_a_grid_without_any_image_says_so() -> None:
    right = make_scores(20)[["sample_id"]].assign(neighbour_sample_id=(np.arange(20) + 1) % 20, correct=True)
    nothing = worst_queries.wrong_queries(make_scores(20), right, make_images(20), "easy", 2)
    figure = worst_queries.draw([nothing], "vit", "default", 1, 6.75, 7.5)
    assert all_text(figure).count("none") == 2


def test_thick_curve_is_the_mean_of_the_seeds() -> None:
    loss, accuracy = drawn("training_curves").axes
    mean = next(curve for curve in loss.lines if curve.get_gid() == "vit/default")
    assert list(mean.get_xdata()) == [1000, 2000, 3000, 4000, 5000]
    assert list(mean.get_ydata()) == pytest.approx([2 / episode for episode in range(1, 6)])
    assert len(accuracy.lines) == len(BACKBONES) * (len(SEEDS) + 1)


# Deteriorations


def test_share_rising_is_that_of_the_pooled_images() -> None:
    metrics = make_rises(DOWNSTREAM)
    found = deteriorations.shares_rising(metrics)
    assert set(found) == {f"rises_{kind}_{severity}" for kind, severity in STEPS}
    for name, share in found.items():
        by_seed = []
        for seed in SEEDS:
            rows = metrics[(metrics["metric"] == name) & (metrics["seed"] == seed)]
            by_seed.append(sum(rows["value"] * rows["n"]) / 600)
        assert share == pytest.approx(np.median(by_seed))


def test_deteriorations_join_the_medians_and_print_the_shares() -> None:
    uncertainty = make_deteriorated()
    rising = deteriorations.shares_rising(make_rises(DOWNSTREAM))
    for panel, kind in zip(drawn("deteriorations").axes, KINDS, strict=True):
        expected = [np.median(uncertainty[step]) for step in [("clean", 0), *((kind, k) for k in range(1, 6))]]
        assert list(line(panel, kind)) == pytest.approx(expected)
        assert panel.get_title() == kind
        shares = [text.get_text() for text in panel.texts if text.get_text().isdigit()]
        assert shares == [f"{100 * rising[f'rises_{kind}_{severity}']:.0f}" for severity in range(1, 6)]


# Human ambiguity


def test_bins_hold_the_quartiles_of_u_and_unanimous_images_stay_alone() -> None:
    uncertainty, entropy = make_votes(np.random.default_rng(3), n=1000)
    uncertainty, entropy = uncertainty[5:], entropy[5:]
    bins = human_ambiguity.binned(entropy, uncertainty)
    assert bins["entropy"].iloc[0] == 0
    unanimous = uncertainty[entropy == 0]
    assert bins["q50"].iloc[0] == pytest.approx(np.median(unanimous))
    assert bins["q25"].iloc[0] == pytest.approx(np.quantile(unanimous, 0.25))
    assert len(bins) == 9 and bins["entropy"].is_monotonic_increasing
    ordered = uncertainty[entropy > 0][np.argsort(entropy[entropy > 0])]
    for number, part in enumerate(np.array_split(ordered, 8), start=1):
        assert bins["q50"].iloc[number] == pytest.approx(np.median(part), abs=0.1)


def test_few_values_of_vote_entropy_are_a_bin_each() -> None:
    values = np.array([0.0, 0.2, 0.2, 0.5, 0.7, 0.7, 0.7])
    bins = human_ambiguity.binned(values, np.arange(7.0))
    assert bins["entropy"].tolist() == [0.0, 0.2, 0.5, 0.7]
    assert bins["q50"].tolist() == [0.0, 1.5, 3.0, 5.0]


def test_ambiguity_prints_the_auroc_and_leaves_images_without_votes_out() -> None:
    text = all_text(draw_ambiguity(DOWNSTREAM[:2], ["resnet"], SEEDS))
    assert text.count("AUROC 0.62±0.01") == 2
    assert "greek (n = 195)" in text


@pytest.mark.parametrize(("entropy", "which"), [(0.5, "ambiguous"), (0.0, "unanimous")])
def test_one_sided_datasets_say_that_there_is_no_auroc(entropy: float, which: str) -> None:
    scores = {DOWNSTREAM[0]: (np.random.default_rng(0).random(50), np.full(50, entropy))}
    figure = human_ambiguity.draw(make_not_dirac([]), scores, "resnet", "default", 3, 6.75, 3.0)
    assert f"all images are {which}: no AUROC" in all_text(figure)
    assert len(line(figure.axes[1], "medians")) == 1


def test_no_votes_give_a_sentence() -> None:
    figure = human_ambiguity.draw(make_not_dirac([]), {}, "resnet", "default", 3, 6.75, 3.0)
    assert "No dataset of this run has human votes." in all_text(figure)
    assert not figure.axes


# Maps


def test_size_grows_and_opacity_falls_with_the_rank_of_u() -> None:
    share = projection.rank_share(np.array([5.0, 1.0, 9.0, 9.0]))
    np.testing.assert_allclose(share, [1 / 3, 0, 5 / 6, 5 / 6])
    np.testing.assert_array_equal(projection.rank_share(np.array([2.0])), [0.0])
    order = np.linspace(0, 1, 11)
    assert (np.diff(projection.size_points(order)) > 0).all()
    assert (np.diff(projection.opacity(order)) < 0).all()
    assert projection.opacity(order).min() > 0.1 and projection.opacity(order).max() <= 1


def test_maps_have_every_image_once_with_its_size_and_the_certain_ones_on_top() -> None:
    table = make_coordinates()
    uncertainty = np.random.default_rng(1).gamma(2.0, size=len(table))
    figure = projection.draw(table, uncertainty, "greek", "resnet", "default", 3, 6.75, 3.8)
    share = projection.rank_share(uncertainty)
    for panel, name in zip(figure.axes, ("tsne", "umap"), strict=True):
        parts = [
            (layer.get_gid(), *row)
            for layer in panel.collections
            for row in zip(layer.get_offsets(), layer.get_sizes(), strict=True)
        ]
        assert len(parts) == len(table)
        for gid, (x, y), size in parts:
            row = int(np.flatnonzero(np.isclose(table[f"{name}_x"], x) & np.isclose(table[f"{name}_y"], y))[0])
            assert gid == table["class_name"][row]
            assert size == pytest.approx(projection.size_points(share[row]) ** 2)
        layers = [layer.get_sizes().max() for layer in panel.collections]
        assert np.polyfit(range(len(layers)), layers, 1)[0] < 0 and layers[0] > layers[-1]


# Risk and coverage


def test_risk_over_coverage_draws_the_baselines_that_there_are() -> None:
    of_all = make_selection(np.random.default_rng(0))
    baselines = {name: u for name, u in of_all.baselines.items() if name != "class_entropy"}
    without = risk_coverage.Selection(of_all.wrong, of_all.head, baselines)
    for selection, expected in ((of_all, True), (without, False)):
        figure = risk_coverage.draw({EvaluationSet("birds", "test"): selection}, "dino", "default", 6.75, 3.0)
        assert ("class_entropy" in [curve.get_gid() for curve in figure.axes[0].lines]) == expected
        assert ("class entropy" in all_text(figure)) == expected


def test_risk_lies_between_oracle_and_the_share_of_errors_at_full_coverage() -> None:
    selection = make_selection(np.random.default_rng(0))
    oracle = risk_coverage.oracle_risks(selection.wrong)
    for uncertainty in [*selection.head.values(), *selection.baselines.values()]:
        risk = risk_coverage.risks(uncertainty, selection.wrong)
        assert (risk >= oracle - 1e-9).all()
        assert risk[-1] == pytest.approx(selection.wrong.mean())
    np.testing.assert_allclose(risk_coverage.risks(selection.wrong.astype(float), selection.wrong), oracle, atol=1e-9)


def test_risk_equals_a_count_of_the_errors_that_are_kept() -> None:
    random = np.random.default_rng(0)
    uncertainty, wrong = random.permutation(200).astype(float), random.random(200) < 0.4
    risk = risk_coverage.risks(uncertainty, wrong)
    for number, coverage in enumerate(risk_coverage.coverages()):  # steps of 0.005: whole images
        kept = wrong[np.argsort(uncertainty)][: round(200 * coverage)]
        assert risk[number] == pytest.approx(kept.mean())


def test_equal_uncertainties_have_the_risk_of_chance() -> None:
    wrong = np.arange(100) < 30
    np.testing.assert_allclose(risk_coverage.risks(np.ones(100), wrong), 0.3)


def test_head_line_is_the_seed_with_the_median_area() -> None:
    selection = make_selection(np.random.default_rng(0))
    figure = risk_coverage.draw({DOWNSTREAM[0]: selection}, "resnet", "default", 6.75, 3.0)
    curves = [risk_coverage.risks(uncertainty, selection.wrong) for uncertainty in selection.head.values()]
    expected = sorted(curves, key=lambda curve: curve.mean())[1]
    np.testing.assert_array_equal(line(figure.axes[0], "head"), expected)
    np.testing.assert_array_equal(line(figure.axes[0], "oracle"), risk_coverage.oracle_risks(selection.wrong))


# Safe retrieval


def test_curves_are_medians_over_seeds() -> None:
    panel = draw_safe_curves(DOWNSTREAM[:1], BACKBONES, (1, 2, 4)).axes[0]
    lines = {curve.get_gid(): curve for curve in panel.lines if curve.get_gid()}
    assert len(lines) == 9
    np.testing.assert_allclose(lines["clean_queries/uncertainty"].get_xdata(), 100 * SHARES)
    np.testing.assert_allclose(line(panel, "clean_queries/uncertainty"), 0.4 - 0.3 * SHARES + 0.02 * SHARES)
    np.testing.assert_allclose(line(panel, "clean_both/both"), 0.4 - 0.5 * SHARES + 0.04 * SHARES)


def test_surface_shows_the_median_relative_to_the_full_error() -> None:
    surfaces = make_surfaces([UPSTREAM], (1, 2, 4))
    figure = safe_retrieval_surface.draw(surfaces, UPSTREAM, "vit", "default", 6.75, 3.4)
    shown = np.asarray(figure.axes[0].images[0].get_array())  # [query share, database share]
    assert shown[0, 0] == pytest.approx(1.0)
    assert shown[10, 0] == pytest.approx((0.4 - 0.2) / 0.4)
    assert shown[0, 10] == pytest.approx((0.4 + 0.05 * 2) / 0.4)


def test_a_set_without_any_error_still_has_a_surface() -> None:
    surfaces = {UPSTREAM: make_surfaces([UPSTREAM], (1,))[UPSTREAM].assign(error=0.0)}
    safe_retrieval_surface.draw(surfaces, UPSTREAM, "vit", "default", 6.75, 3.4).draw_without_rendering()


# Joint training


def test_lines_are_medians_and_bands_reach_the_extremes() -> None:
    curves = make_joint_curves()
    figure = joint_training.draw(curves, "resnet", "latin", 1240, "order", 0.5, 6.75, 3.6)
    for number, (mode, quantity) in enumerate([(False, "top1"), (True, "top1"), (False, "auroc_correct")]):
        axes = figure.axes[number]
        values = np.stack([curves[mode, seed][quantity] for seed in SEEDS])
        assert list(line(axes, quantity)) == pytest.approx(list(np.median(values, axis=0)))
        band = axes.collections[-1].get_paths()[0].vertices
        for epoch in range(5):
            heights = band[band[:, 0] == epoch, 1]
            assert (heights.min(), heights.max()) == pytest.approx((values[:, epoch].min(), values[:, epoch].max()))
    assert [axes.get_title()[:3] for axes in figure.axes[:2]] == ["(a)", "(b)"]
    assert "without" in figure.axes[0].get_title()
    assert "order loss, λ = 0.5" in all_text(figure)
    assert "squared-error loss, λ = 1" in all_text(drawn("joint_training"))


# URL benchmark


def test_the_benchmark_has_a_panel_per_architecture_and_a_point_per_seed() -> None:
    figure = drawn("benchmark")
    assert [axes.get_title() for axes in figure.axes if axes.get_visible()] == BACKBONES
    points = {points.get_gid(): points for axes in figure.axes for points in axes.lines}
    assert list(points["vit/hib"].get_xdata()) == pytest.approx([0.41, 0.42, 0.43])
    expected = [np.mean([auroc(f"vit_hib_seed{seed}", shown, seed) for shown in DOWNSTREAM]) for seed in SEEDS]
    assert list(points["vit/hib"].get_ydata()) == pytest.approx(expected)
    assert pd.Series([text.get_text() for text in figure.legends[0].get_texts()]).is_unique
