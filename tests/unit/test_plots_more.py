"""Figures of deteriorations, human ambiguity, maps, and risk over coverage: they show what the numbers say, and fit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipeline_lib.evaluation.metric_rows import COLUMNS
from pipeline_lib.plots import deteriorations, human_ambiguity, projection, risk_coverage, style
from pipeline_lib.tables.summary import EvaluationSet

SEEDS = (1, 2, 3)
SETS = [EvaluationSet(name, "test") for name in ("greek", "cyrillic", "digits")]
LONG = [EvaluationSet(f"dataset_with_a_very_long_name_{number:02d}", "test") for number in range(13)]
KINDS = ["blur", "box", "zoom", "noise"]
STEPS = [(kind, severity) for kind in KINDS for severity in range(1, 6)]


def rises(sets: list[EvaluationSet]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        ["resnet", "head", "default", seed, *each, f"rises_{kind}_{severity}", rng.random(), 100 * (place + 1)]
        for place, each in enumerate(sets)
        for seed in SEEDS
        for kind, severity in STEPS
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"seed": "Int64", "n": "Int64"})


def pooled(rng: np.random.Generator, n: int = 300) -> dict[tuple[str, int], np.ndarray]:
    clean = {deteriorations.CLEAN: rng.gamma(2.0, size=n)}
    return clean | {(kind, severity): rng.gamma(2.0 + severity / 3, size=n) for kind, severity in STEPS}


def draw_deteriorations(sets: list[EvaluationSet]) -> Figure:
    rising = deteriorations.shares_rising(rises(sets))
    uncertainty = pooled(np.random.default_rng(0))
    return deteriorations.draw(uncertainty, rising, sets, "resnet", "default", len(SEEDS), 6.75, 3.0)


def not_dirac(sets: list[EvaluationSet]) -> pd.DataFrame:
    rows = [
        ["resnet", "head", "default", seed, *each, "auroc_not_dirac", 0.6 + seed / 100, 90]
        for each in sets
        for seed in SEEDS
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"seed": "Int64", "n": "Int64"})


def votes(rng: np.random.Generator, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    entropy = np.where(rng.random(n) < 0.4, 0.0, rng.random(n))
    entropy[:5] = np.nan
    return rng.gamma(2.0, size=n) + np.nan_to_num(entropy), entropy


def draw_ambiguity(sets: list[EvaluationSet]) -> Figure:
    rng = np.random.default_rng(0)
    scores = {each: votes(rng) for each in sets}
    return human_ambiguity.draw(not_dirac(sets), scores, "resnet", "default", len(SEEDS), 6.75, 3.0)


def coordinates(classes: int = 6, n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(n, 4)), columns=["tsne_x", "tsne_y", "umap_x", "umap_y"])
    table.insert(0, "sample_id", np.arange(n))
    table.insert(1, "label", np.arange(n) % classes)
    table.insert(2, "class_name", [f"class number {each}" for each in table["label"]])
    return table


def draw_projection(sets: list[EvaluationSet]) -> Figure:
    table = coordinates(classes=12 if len(sets) > 5 else 6)
    uncertainty = np.random.default_rng(1).gamma(2.0, size=len(table))
    return projection.draw(table, uncertainty, sets[0].dataset, "resnet", "default", len(SEEDS), 6.75, 3.8)


def selection(rng: np.random.Generator, n: int = 250) -> risk_coverage.Selection:
    wrong = rng.random(n) < 0.3
    return risk_coverage.Selection(
        wrong,
        {seed: wrong * seed / 2 + rng.random(n) for seed in SEEDS},
        {
            "class_entropy": rng.random(n),
            "embedding_norm": rng.integers(0, 3, n).astype(float),
            "knn_distance": rng.random(n),
        },
    )


def draw_risk(sets: list[EvaluationSet]) -> Figure:
    rng = np.random.default_rng(0)
    return risk_coverage.draw({each: selection(rng) for each in sets}, "resnet", "default", 6.75, 3.0)


def test_risk_over_coverage_draws_the_baselines_that_there_are() -> None:
    of_all = selection(np.random.default_rng(0))
    baselines = {name: u for name, u in of_all.baselines.items() if name != "class_entropy"}
    without = risk_coverage.Selection(of_all.wrong, of_all.head, baselines)
    for drawn, expected in ((of_all, True), (without, False)):
        figure = risk_coverage.draw({EvaluationSet("birds", "test"): drawn}, "dino", "default", 6.75, 3.0)
        assert ("class_entropy" in [each.get_gid() for each in figure.axes[0].lines]) == expected
        assert ("class entropy" in all_text(figure)) == expected


DRAW = [draw_deteriorations, draw_ambiguity, draw_projection, draw_risk]


def all_text(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text)).replace("\n", " ")


def line(axes, gid: str) -> np.ndarray:
    return next(each for each in axes.lines if each.get_gid() == gid).get_ydata()


def test_share_rising_is_that_of_the_pooled_images() -> None:
    metrics = rises(SETS)
    found = deteriorations.shares_rising(metrics)
    assert set(found) == {f"rises_{kind}_{severity}" for kind, severity in STEPS}
    for name, share in found.items():
        by_seed = []
        for seed in SEEDS:
            mine = metrics[(metrics["metric"] == name) & (metrics["seed"] == seed)]
            by_seed.append(sum(mine["value"] * mine["n"]) / 600)
        assert share == pytest.approx(np.median(by_seed))


def test_deteriorations_join_the_medians_and_print_the_shares() -> None:
    uncertainty = pooled(np.random.default_rng(0))
    figure = draw_deteriorations(SETS)
    rising = deteriorations.shares_rising(rises(SETS))
    for panel, kind in zip(figure.axes, KINDS, strict=True):
        expected = [np.median(uncertainty[step]) for step in [("clean", 0), *((kind, k) for k in range(1, 6))]]
        assert list(line(panel, kind)) == pytest.approx(expected)
        assert panel.get_title() == kind
        shares = [text.get_text() for text in panel.texts if text.get_text().isdigit()]
        assert shares == [f"{100 * rising[f'rises_{kind}_{severity}']:.0f}" for severity in range(1, 6)]


def test_bins_hold_the_quartiles_of_u_and_unanimous_images_stay_alone() -> None:
    uncertainty, entropy = votes(np.random.default_rng(3), n=1000)
    uncertainty, entropy = uncertainty[5:], entropy[5:]
    bins = human_ambiguity.binned(entropy, uncertainty)
    assert bins["entropy"].iloc[0] == 0
    unanimous = uncertainty[entropy == 0]
    assert bins["q50"].iloc[0] == pytest.approx(np.median(unanimous))
    assert bins["q25"].iloc[0] == pytest.approx(np.quantile(unanimous, 0.25))
    assert len(bins) == 9 and bins["entropy"].is_monotonic_increasing
    ordered = uncertainty[entropy > 0][np.argsort(entropy[entropy > 0])]
    for place, part in enumerate(np.array_split(ordered, 8), start=1):
        assert bins["q50"].iloc[place] == pytest.approx(np.median(part), abs=0.1)


def test_few_values_of_vote_entropy_are_a_bin_each() -> None:
    values = np.array([0.0, 0.2, 0.2, 0.5, 0.7, 0.7, 0.7])
    bins = human_ambiguity.binned(values, np.arange(7.0))
    assert bins["entropy"].tolist() == [0.0, 0.2, 0.5, 0.7]
    assert bins["q50"].tolist() == [0.0, 1.5, 3.0, 5.0]


def test_ambiguity_prints_the_auroc_and_leaves_images_without_votes_out() -> None:
    text = all_text(draw_ambiguity(SETS[:2]))
    assert text.count("AUROC 0.62±0.01") == 2
    assert "greek (n = 195)" in text


@pytest.mark.parametrize(("entropy", "which"), [(0.5, "ambiguous"), (0.0, "unanimous")])
def test_one_sided_datasets_say_that_there_is_no_auroc(entropy: float, which: str) -> None:
    scores = {SETS[0]: (np.random.default_rng(0).random(50), np.full(50, entropy))}
    figure = human_ambiguity.draw(not_dirac([]), scores, "resnet", "default", 3, 6.75, 3.0)
    assert f"all images are {which}: no AUROC" in all_text(figure)
    assert len(line(figure.axes[1], "medians")) == 1


def test_no_votes_give_a_sentence() -> None:
    figure = human_ambiguity.draw(not_dirac([]), {}, "resnet", "default", 3, 6.75, 3.0)
    assert "No dataset of this run has human votes." in all_text(figure)
    assert not figure.axes


def test_size_grows_and_opacity_falls_with_the_rank_of_u() -> None:
    share = projection.rank_share(np.array([5.0, 1.0, 9.0, 9.0]))
    np.testing.assert_allclose(share, [1 / 3, 0, 5 / 6, 5 / 6])
    np.testing.assert_array_equal(projection.rank_share(np.array([2.0])), [0.0])
    order = np.linspace(0, 1, 11)
    assert (np.diff(projection.size_points(order)) > 0).all()
    assert (np.diff(projection.opacity(order)) < 0).all()
    assert projection.opacity(order).min() > 0.1 and projection.opacity(order).max() <= 1


def test_maps_have_every_image_once_with_its_size_and_the_certain_ones_on_top() -> None:
    table = coordinates()
    uncertainty = np.random.default_rng(1).gamma(2.0, size=len(table))
    figure = projection.draw(table, uncertainty, "greek", "resnet", "default", 3, 6.75, 3.8)
    share = projection.rank_share(uncertainty)
    for panel, name in zip(figure.axes, ("tsne", "umap"), strict=True):
        parts = [
            (each.get_gid(), *row)
            for each in panel.collections
            for row in zip(each.get_offsets(), each.get_sizes(), strict=True)
        ]
        assert len(parts) == len(table)
        for gid, (x, y), size in parts:
            row = int(np.flatnonzero(np.isclose(table[f"{name}_x"], x) & np.isclose(table[f"{name}_y"], y))[0])
            assert gid == table["class_name"][row]
            assert size == pytest.approx(projection.size_points(share[row]) ** 2)
        layers = [each.get_sizes().max() for each in panel.collections]
        assert np.polyfit(range(len(layers)), layers, 1)[0] < 0 and layers[0] > layers[-1]


def test_risk_lies_between_oracle_and_the_share_of_errors_at_full_coverage() -> None:
    rng = np.random.default_rng(0)
    each = selection(rng)
    oracle = risk_coverage.oracle_risk(each.wrong)
    for uncertainty in [*each.head.values(), *each.baselines.values()]:
        risk = risk_coverage.risk_on_grid(uncertainty, each.wrong)
        assert (risk >= oracle - 1e-9).all()
        assert risk[-1] == pytest.approx(each.wrong.mean())
    np.testing.assert_allclose(risk_coverage.risk_on_grid(each.wrong.astype(float), each.wrong), oracle, atol=1e-9)


def test_risk_equals_a_count_of_the_errors_that_are_kept() -> None:
    rng = np.random.default_rng(0)
    uncertainty, wrong = rng.permutation(200).astype(float), rng.random(200) < 0.4
    risk = risk_coverage.risk_on_grid(uncertainty, wrong)
    for place, coverage in enumerate(risk_coverage.GRID):  # steps of 0.005: whole images
        kept = wrong[np.argsort(uncertainty)][: round(200 * coverage)]
        assert risk[place] == pytest.approx(kept.mean())


def test_equal_uncertainties_have_the_risk_of_chance() -> None:
    wrong = np.arange(100) < 30
    np.testing.assert_allclose(risk_coverage.risk_on_grid(np.ones(100), wrong), 0.3)


def test_head_line_is_the_seed_with_the_median_area() -> None:
    each = selection(np.random.default_rng(0))
    figure = risk_coverage.draw({SETS[0]: each}, "resnet", "default", 6.75, 3.0)
    curves = [risk_coverage.risk_on_grid(uncertainty, each.wrong) for uncertainty in each.head.values()]
    expected = sorted(curves, key=lambda curve: curve.mean())[1]
    np.testing.assert_array_equal(line(figure.axes[0], "head"), expected)
    np.testing.assert_array_equal(line(figure.axes[0], "oracle"), risk_coverage.oracle_risk(each.wrong))


@pytest.mark.parametrize("draw", DRAW)
def test_titles_say_datasets_n_and_seeds(draw: Callable[..., Figure]) -> None:
    text = all_text(draw(SETS))
    assert "3 seeds" in text and "resnet" in text and "greek" in text
    assert any(n in text for n in ("300 images", "n = 195", "120 images", "greek (250)"))


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize("sets", [SETS[:1], LONG], ids=["one", "thirteen"])
def test_everything_is_inside_the_figure_and_large_enough_to_read(
    draw: Callable[..., Figure], sets: list[EvaluationSet]
) -> None:
    figure = draw(sets)
    figure.draw_without_rendering()
    assert all(text.get_fontsize() >= 7 for text in figure.findobj(Text))
    title, subtitle, *others = (text.get_window_extent() for text in figure.texts)
    axes = [each.get_tightbbox() for each in figure.axes if each.get_visible()]
    legends = [each.get_window_extent() for each in figure.legends]
    for box in [title, subtitle, *others, *axes, *legends]:
        assert box.x0 >= figure.bbox.x0 - 2 and box.x1 <= figure.bbox.x1 + 2
        assert box.y0 >= figure.bbox.y0 - 2 and box.y1 <= figure.bbox.y1 + 2
    for box in [*others, *axes, *legends]:
        assert box.y1 <= subtitle.y0 + 1
    for place, box in enumerate(axes):
        assert not any(box.overlaps(legend) for legend in legends)
        assert box.height > 0.5 * figure.dpi
        # Neighbours may share the line between them, no more.
        assert not any(box.padded(-1).overlaps(other.padded(-1)) for other in axes[:place])


def test_equal_maps_give_equal_bytes(tmp_path: Path) -> None:
    written = []
    for run in "ab":
        style.save(draw_projection(SETS), tmp_path / run / "f.png", tmp_path / run / "f.pdf", 50)
        written.append([(tmp_path / run / name).read_bytes() for name in ("f.png", "f.pdf")])
    assert written[0] == written[1]


def test_a_collapsed_head_still_has_its_figures() -> None:
    same = {key: np.full(30, 0.7) for key in pooled(np.random.default_rng(0), 30)}
    assert deteriorations.draw(same, {}, SETS, "resnet", "default", 3, 6.75, 3.0).axes[0].get_ylim()[0] < 0.7
    scores = {SETS[0]: (np.full(30, 0.7), np.arange(30) / 30)}
    assert human_ambiguity.draw(not_dirac([]), scores, "resnet", "default", 3, 6.75, 3.0).axes[0].get_xlim()[0] < 0.7


def test_drawing_needs_neither_pyplot_nor_torch() -> None:
    code = (
        "import sys; from pipeline_lib.plots import deteriorations, human_ambiguity, projection, projection_page;"
        "from pipeline_lib.plots import risk_coverage;"
        "from pipeline_lib.stages.figures import deteriorations, human_ambiguity, projection, risk_coverage;"
        "print(*{'torch', 'timm', 'sklearn', 'umap', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == ""
