"""Figures show what the numbers say, fit their size, read in grey, and come out the same every time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from pipeline_lib.evaluation.metric_rows import COLUMNS
from pipeline_lib.plots import densities, examples, recall_vs_auroc, style, training_curves, zero_shot
from pipeline_lib.tables.summary import EvaluationSet

UPSTREAM = EvaluationSet("latin", "test")
DOWNSTREAM = [EvaluationSet(name, "test") for name in ("greek", "cyrillic", "digits")]
BACKBONES = ["resnet", "vit"]
SEEDS = (1, 2, 3)
LONG = [EvaluationSet(f"dataset_with_a_very_long_name_{number:02d}", "test") for number in range(13)]


def auroc(backbone: str, evaluation_set: EvaluationSet, seed: int, variant: str = "default") -> float:
    text = f"{backbone}/{evaluation_set.dataset}/{seed}/{variant}".encode()
    return 0.45 + int(hashlib.sha256(text).hexdigest()[:6], 16) / 16**6 * 0.4


def make_metrics(
    downstream: list[EvaluationSet],
    backbones: list[str],
    seeds: tuple[int, ...],
    variants: tuple[str, ...] = ("default",),
) -> pd.DataFrame:
    rows = []
    for backbone in backbones:
        for each in [UPSTREAM, *downstream]:
            rows.append([backbone, "representation", "", None, *each, "r1", 0.5, 700])
            rows.append([backbone, "class_entropy", "", None, *each, "auroc_correct", 0.61, 700])
            for variant in variants:
                for seed in seeds:
                    value = auroc(backbone, each, seed, variant)
                    for metric in ("auroc_correct", "auroc_ood"):
                        rows.append([backbone, "head", variant, seed, *each, metric, value, 700])
        place = backbones.index(backbone)
        rows.append(
            [backbone, "representation", "", None, "downstream", "", "avg_downstream_r1", 0.4 + 0.1 * place, None]
        )
        for variant in variants:
            for seed in seeds:
                mean = float(np.mean([auroc(backbone, each, seed, variant) for each in downstream]))
                rows.append(
                    [backbone, "head", variant, seed, "downstream", "", "avg_downstream_auroc_correct", mean, None]
                )
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64", "n": "Int64"})


def draw_zero_shot(downstream: list[EvaluationSet], backbones: list[str], seeds: tuple[int, ...]) -> Figure:
    metrics = make_metrics(downstream, backbones, seeds)
    return zero_shot.draw(metrics, UPSTREAM, downstream, backbones, "default", 6.75, 3.0)


def draw_densities(downstream: list[EvaluationSet], backbones: list[str], seeds: tuple[int, ...]) -> Figure:
    metrics = make_metrics(downstream, backbones, seeds)
    random = np.random.default_rng(0)
    scores = {(name, each): random.gamma(2.0, size=300) for name in backbones for each in [UPSTREAM, *downstream]}
    return densities.draw(metrics, scores, UPSTREAM, downstream, backbones, "default", 6.75, 3.4)


def draw_recall(downstream: list[EvaluationSet], backbones: list[str], seeds: tuple[int, ...]) -> Figure:
    metrics = make_metrics(downstream, backbones, seeds, ("default", "other"))
    return recall_vs_auroc.draw(metrics, None, downstream, backbones, ["default", "other"], 4.5, 3.4)


def make_curves(backbones: list[str], seeds: tuple[int, ...]) -> dict[tuple[str, str, int], pd.DataFrame]:
    episodes = np.arange(1, 6)
    return {
        (backbone, "default", seed): pd.DataFrame(
            {"images": episodes * 1000, "loss": seed / episodes, "order_accuracy": 0.5 + 0.01 * seed * episodes}
        )
        for backbone in backbones
        for seed in seeds
    }


def draw_curves(downstream: list[EvaluationSet], backbones: list[str], seeds: tuple[int, ...]) -> Figure:
    return training_curves.draw(make_curves(backbones, seeds), "latin", backbones, ["default"], 6.75, 3.0)


def draw_examples(downstream: list[EvaluationSet], backbones: list[str], seeds: tuple[int, ...]) -> Figure:
    grid = [examples.extremes(make_scores(20), make_images(20), each.dataset, 2) for each in [UPSTREAM, *downstream]]
    return examples.draw(grid, backbones[0], "default", len(seeds), 6.75, 7.5)


DRAW = [draw_zero_shot, draw_recall, draw_densities, draw_examples, draw_curves]


def make_scores(n: int) -> pd.DataFrame:
    """Return scores of images n - 1 .. 0 (not in the images' order), whose u is rising in the sample_id."""
    sample_id = np.arange(n)[::-1]
    return pd.DataFrame(
        {"sample_id": sample_id, "uncertainty_seed1": sample_id / n, "uncertainty_seed2": 2 * sample_id / n}
    )


def make_images(n: int) -> SimpleNamespace:
    """Return images whose grey value is their sample_id."""
    return SimpleNamespace(
        sample_id=np.arange(n), image=lambda position: Image.new("RGB", (40, 30), (position, position, position))
    )


def all_text(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text)).replace("\n", " ")


def test_bars_reach_the_medians_and_whiskers_the_extremes() -> None:
    figure = draw_zero_shot(DOWNSTREAM, BACKBONES, SEEDS)
    axes = figure.axes[0]
    mean = {e: np.mean([np.median([auroc(b, e, s) for s in SEEDS]) for b in BACKBONES]) for e in DOWNSTREAM}
    order = [UPSTREAM, *sorted(DOWNSTREAM, key=mean.get, reverse=True)]
    labels = [label.get_text().splitlines()[0] for label in axes.get_xticklabels()]
    assert labels == [each.dataset for each in order]
    for backbone, bars, whiskers in zip(BACKBONES, axes.containers[::2], axes.containers[1::2], strict=True):
        values = np.array([[auroc(backbone, each, seed) for seed in SEEDS] for each in order])
        assert [bar.get_y() + bar.get_height() for bar in bars] == pytest.approx(list(np.median(values, axis=1)))
        assert {bar.get_y() for bar in bars} == {0.5}
        ends = np.array([segment[:, 1] for segment in whiskers.lines[2][0].get_segments()])
        np.testing.assert_allclose(ends, np.stack([values.min(axis=1), values.max(axis=1)], axis=1))


def test_one_seed_has_no_whiskers() -> None:
    assert len(draw_zero_shot(DOWNSTREAM, BACKBONES, (1,)).axes[0].containers) == len(BACKBONES)


def test_points_are_the_seeds_of_each_backbone_and_variant() -> None:
    lines = {line.get_gid(): line for line in draw_recall(DOWNSTREAM, BACKBONES, SEEDS).axes[0].lines if line.get_gid()}
    assert set(lines) == {f"{backbone}/{variant}" for backbone in BACKBONES for variant in ("default", "other")}
    expected = [np.mean([auroc("vit", each, seed, "other") for each in DOWNSTREAM]) for seed in SEEDS]
    assert list(lines["vit/other"].get_ydata()) == pytest.approx(expected)
    assert list(lines["vit/other"].get_xdata()) == [0.5] * len(SEEDS)
    assert lines["vit/default"].get_marker() != lines["vit/other"].get_marker()


def test_density_integrates_to_one_and_follows_the_data() -> None:
    uncertainty = np.random.default_rng(0).normal(3.0, 0.5, 20_000)
    position, height = densities.density(uncertainty, 0.0, 6.0)
    assert np.sum(height) * (position[1] - position[0]) == pytest.approx(1.0, abs=1e-9)
    truth = np.exp(-0.5 * ((position - 3.0) / 0.5) ** 2) / (0.5 * np.sqrt(2 * np.pi))
    assert np.abs(height - truth).max() < 0.05 * truth.max()


def test_density_does_not_leak_below_the_lower_bound_of_u() -> None:
    uncertainty = np.random.default_rng(0).uniform(0.0, 1.0, 20_000)
    _, height = densities.density(uncertainty, 0.0, 1.0)
    assert height == pytest.approx(np.ones_like(height), abs=0.15)


def test_typical_seed_has_the_median_auroc() -> None:
    metrics = make_metrics(DOWNSTREAM, BACKBONES, SEEDS)
    means = {seed: np.mean([auroc("vit", each, seed) for each in DOWNSTREAM]) for seed in SEEDS}
    assert densities.typical_seed(metrics, DOWNSTREAM, "vit", "default") == sorted(means, key=means.get)[1]


def test_densities_print_the_auroc_of_each_pair() -> None:
    text = all_text(draw_densities(DOWNSTREAM, ["vit"], SEEDS))
    for each in DOWNSTREAM:
        values = [auroc("vit", each, seed) for seed in SEEDS]
        median = float(np.median(values))
        assert f"{median:.2f}±{max(median - min(values), max(values) - median):.2f}" in text


def test_a_collapsed_head_still_has_a_density_plot() -> None:
    scores = {("vit", each): np.full(50, 0.7) for each in [UPSTREAM, *DOWNSTREAM]}
    metrics = make_metrics(DOWNSTREAM, ["vit"], (1,))
    figure = densities.draw(metrics, scores, UPSTREAM, DOWNSTREAM, ["vit"], "default", 6.75, 3.4)
    low, high = figure.axes[0].get_xlim()
    assert low < 0.7 < high


def test_examples_are_the_extremes_in_order() -> None:
    found = examples.extremes(make_scores(50), make_images(50), "latin", 3)
    assert [image.getpixel((0, 0))[0] for image, _ in found.lowest] == [0, 1, 2]
    assert [image.getpixel((0, 0))[0] for image, _ in found.highest] == [47, 48, 49]
    assert [u for _, u in found.highest] == pytest.approx([1.5 * each / 50 for each in (47, 48, 49)])


def test_no_image_stands_on_both_sides() -> None:
    found = examples.extremes(make_scores(5), make_images(5), "latin", 4)
    shown = [image.getpixel((0, 0))[0] for image, _ in found.lowest + found.highest]
    assert shown == [0, 1, 3, 4]


def test_example_grid_has_every_image_once_from_left_to_right() -> None:
    figure = draw_examples(DOWNSTREAM, BACKBONES, SEEDS)
    cells = [axes for axes in figure.axes if axes.images]
    assert len(cells) == (1 + len(DOWNSTREAM)) * 4
    first_row = sorted(cells[:4], key=lambda axes: axes.get_position().x0)
    assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in first_row] == [0, 1, 18, 19]
    assert [float(axes.get_xlabel()) for axes in first_row] == sorted(float(axes.get_xlabel()) for axes in first_row)


def test_thick_curve_is_the_mean_of_the_seeds() -> None:
    figure = draw_curves(DOWNSTREAM, BACKBONES, SEEDS)
    loss, accuracy = figure.axes
    mean = next(line for line in loss.lines if line.get_gid() == "vit/default")
    assert list(mean.get_xdata()) == [1000, 2000, 3000, 4000, 5000]
    assert list(mean.get_ydata()) == pytest.approx([2 / episode for episode in range(1, 6)])
    assert len(accuracy.lines) == len(BACKBONES) * (len(SEEDS) + 1)


@pytest.mark.parametrize("draw", DRAW)
def test_titles_say_datasets_and_seeds(draw) -> None:
    text = all_text(draw(DOWNSTREAM, BACKBONES, SEEDS))
    assert "3 seeds" in text
    assert "resnet" in text
    assert ("latin" if draw is draw_curves else "greek") in text
    assert any(n in text for n in ("n = 700", "2,100 images", "(300)", "n = 20", "5,000 images"))


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize(
    ("downstream", "backbones", "seeds"),
    [(DOWNSTREAM[:1], ["resnet"], (1,)), (LONG, [f"backbone_with_a_long_name_{k}" for k in range(4)], (1, 2, 3, 4, 5))],
    ids=["smallest", "largest"],
)
def test_everything_is_inside_the_figure_below_the_title_and_large_enough_to_read(
    draw, downstream, backbones, seeds
) -> None:
    figure = draw(downstream, backbones, seeds)
    figure.draw_without_rendering()
    assert all(text.get_fontsize() >= 7 for text in figure.findobj(Text))
    title, subtitle, *others = (text.get_window_extent() for text in figure.texts)
    axes = [each.get_tightbbox() for each in figure.axes]
    legends = [each.get_window_extent() for each in figure.legends]
    for box in [title, subtitle, *others, *axes, *legends]:
        assert box.x0 >= figure.bbox.x0 - 2 and box.x1 <= figure.bbox.x1 + 2
        assert box.y0 >= figure.bbox.y0 - 2 and box.y1 <= figure.bbox.y1 + 2
    for box in [*others, *axes, *legends]:
        assert box.y1 <= subtitle.y0 + 1
    for box in axes:
        assert not any(box.overlaps(legend) for legend in legends)
        assert box.height > 0.2 * figure.dpi


def test_first_series_differ_in_luminance_and_in_every_other_attribute() -> None:
    looks = [style.series(place) for place in range(6)]
    luminance = [np.dot(to_rgb(look.colour), (0.2126, 0.7152, 0.0722)) for look in looks[:3]]
    assert min(abs(a - b) for k, a in enumerate(luminance) for b in luminance[:k]) > 0.1
    for attribute in ("colour", "hatch", "marker", "fill", "line"):
        assert len({getattr(look, attribute) for look in looks}) == len(looks)


def test_bars_of_different_backbones_have_different_hatches() -> None:
    axes = draw_zero_shot(DOWNSTREAM, BACKBONES, SEEDS).axes[0]
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len({bar.get_hatch() for bar in bars}) == len(BACKBONES)


@pytest.mark.parametrize("draw", DRAW)
def test_equal_figures_give_equal_bytes(draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    for run, year in (("a", 1), ("b", 900_000_000)):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(year))  # a date in a file would differ
        figure = draw(DOWNSTREAM[:1], BACKBONES, SEEDS)
        style.save(figure, tmp_path / run / "f.png", tmp_path / run / "f.pdf", 80)
        written.append([(tmp_path / run / name).read_bytes() for name in ("f.png", "f.pdf")])
    assert written[0] == written[1]
    assert written[0][0].startswith(b"\x89PNG") and written[0][1].startswith(b"%PDF")


def test_bytes_do_not_depend_on_the_hash_seed_or_on_a_users_matplotlibrc(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("font.size: 20\naxes.facecolor: red\nsavefig.bbox: tight\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_plots as t; from pathlib import Path;"
        "t.style.save(t.draw_zero_shot(t.DOWNSTREAM, t.BACKBONES, t.SEEDS), Path('f.png'), Path('f.pdf'), 80)"
    )
    tests = Path(__file__).parent
    digests = set()
    for number, rc in ((1, {}), (2, {"MATPLOTLIBRC": str(tmp_path)})):
        folder = tmp_path / str(number)
        folder.mkdir()
        environment = os.environ | {"PYTHONPATH": str(tests.parents[1]), "PYTHONHASHSEED": str(number)} | rc
        subprocess.run([sys.executable, "-c", code, str(tests)], cwd=folder, env=environment, check=True)
        digests.add(b"".join((folder / name).read_bytes() for name in ("f.png", "f.pdf")))
    assert len(digests) == 1


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = draw_curves(DOWNSTREAM, BACKBONES, SEEDS)
    png, pdf = tmp_path / "f.png", tmp_path / "f.pdf"
    png.write_bytes(b"old")

    def fail(file, **options) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="no space"):
        style.save(figure, png, pdf, 80)
    assert [path.name for path in tmp_path.iterdir()] == ["f.png"]
    assert png.read_bytes() == b"old"


def test_drawing_needs_neither_pyplot_nor_torch() -> None:
    code = (
        "import sys; from pipeline_lib.plots import densities, examples, recall_vs_auroc, training_curves, zero_shot;"
        "print(*{'torch', 'timm', 'sklearn', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == ""
