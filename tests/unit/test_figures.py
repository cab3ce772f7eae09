"""What holds of every figure: it says what it shows, fits its size, reads in grey, and comes out the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from pipeline_lib.config import kinds
from pipeline_lib.config.load import load_config
from pipeline_lib.figures import style
from pipeline_lib.stages import figure as stage
from tests.unit.drawings import BACKBONES, DOWNSTREAM, DRAWINGS, SEEDS, SIZES, all_text, assert_readable, drawn

ROOT = Path(__file__).parents[2]
# What a plan asks of figures and tables, and then every figure, in a process of its own.
ELSEWHERE = """
import sys
from pathlib import Path

from pipeline_lib.config import kinds
from pipeline_lib.config.load import load_config
from pipeline_lib.stages import figure, projection_page, table

config = load_config(Path("config.yaml"))
for family, stage in (("figures", figure), ("tables", table)):
    for name in kinds.wanted(family, config):
        stage.Spec.of(config, name), stage.inputs(config, name), stage.plugins(config, name)
print(*("planned:", *{"pandas", "matplotlib", "scipy", "torch"} & set(sys.modules)))

from pipeline_lib.figures import style
from tests.unit import drawings

for draw in drawings.DRAWINGS.values():
    draw(*drawings.SIZES["smallest"])
elsewhere = Path(sys.argv[1], "elsewhere")
figure = drawings.drawn("zero_shot")
style.save(figure, elsewhere.with_suffix(".png"), elsewhere.with_suffix(".pdf"), 80)
print(*("drawn:", *{"torch", "timm", "sklearn", "umap", "matplotlib.pyplot"} & set(sys.modules)))
"""


def test_every_figure_is_drawn_here() -> None:
    assert set(DRAWINGS) == set(kinds.kinds("figures"))


@pytest.mark.parametrize("name", DRAWINGS)
def test_titles_say_datasets_images_and_seeds(name: str) -> None:
    text = all_text(drawn(name))
    assert "3 seeds" in text
    assert "resnet" in text
    assert ("latin" if name == "training_curves" else "greek") in text
    images = ("n = 700", "2,100 images", "(300)", "n = 20", "5,000 images", "300 images", "n = 195", "120 images")
    images += ("greek (250)", "1,240 held-out images", "mean over 3 unseen datasets")
    assert any(n in text for n in images)


@pytest.mark.parametrize(
    "size", [pytest.param(size, marks=[pytest.mark.slow] if size == "largest" else []) for size in SIZES]
)
@pytest.mark.parametrize("name", DRAWINGS)
def test_everything_is_readable(name: str, size: str) -> None:
    # Titles of densities are centred on the curves, beside which numbers stand.
    assert_readable(drawn(name, size), are_panels_apart=name != "densities")


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWINGS)
def test_without_titles_the_figure_has_their_room(name: str) -> None:
    with style.titles(False):
        figure = DRAWINGS[name](*SIZES["usual"])
    figure.draw_without_rendering()
    titled = drawn(name)
    title, subtitle = (text.get_text().replace("\n", " ") for text in titled.texts[:2])
    assert title and subtitle
    assert title not in all_text(figure) and subtitle not in all_text(figure)
    assert all(text.get_window_extent().y1 <= figure.bbox.y1 for text in figure.texts)
    top = max(panel.get_tightbbox().y1 for panel in figure.axes if panel.get_visible())
    lowest_title = titled.texts[1].get_window_extent().y0
    is_lower = figure.get_figheight() < titled.get_figheight() - 0.1
    assert is_lower or top > lowest_title


@pytest.mark.slow
@pytest.mark.parametrize("name", ["examples", "projection"])
def test_equal_figures_give_equal_bytes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    for run, year in (("a", 1), ("b", 900_000_000)):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(year))  # a date in a file would differ
        figure = DRAWINGS[name](*SIZES["smallest"])
        style.save(figure, tmp_path / run / "f.png", tmp_path / run / "f.pdf", 50)
        written.append([(tmp_path / run / file).read_bytes() for file in ("f.png", "f.pdf")])
    assert written[0] == written[1]
    assert written[0][0].startswith(b"\x89PNG") and written[0][1].startswith(b"%PDF")


@pytest.mark.slow
def test_a_plan_imports_nothing_heavy_and_bytes_depend_on_neither_hash_seed_nor_a_users_matplotlibrc(
    tmp_path: Path,
) -> None:
    (tmp_path / "matplotlibrc").write_text("font.size: 20\naxes.facecolor: red\nsavefig.bbox: tight\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1", "MATPLOTLIBRC": str(tmp_path)}
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    assert done.stdout.splitlines() == ["planned:", "drawn:"]
    style.save(drawn("zero_shot"), tmp_path / "here.png", tmp_path / "here.pdf", 80)
    for suffix in ("png", "pdf"):
        assert (tmp_path / f"here.{suffix}").read_bytes() == (tmp_path / f"elsewhere.{suffix}").read_bytes()


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = DRAWINGS["training_curves"](DOWNSTREAM, BACKBONES, SEEDS)
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


def test_first_series_differ_in_luminance_and_in_every_other_attribute() -> None:
    looks = [style.series(position) for position in range(6)]
    luminance = [np.dot(to_rgb(look.colour), (0.2126, 0.7152, 0.0722)) for look in looks[:3]]
    assert min(abs(a - b) for k, a in enumerate(luminance) for b in luminance[:k]) > 0.1
    for attribute in ("colour", "hatch", "marker", "fill", "line"):
        assert len({getattr(look, attribute) for look in looks}) == len(looks)


def test_every_figure_has_what_the_report_and_the_workflow_need() -> None:
    known = {entry.name for entry in stage.INPUTS}
    config = load_config(ROOT / "config.yaml")
    for name, figure in kinds.wanted("figures", config).items():
        assert len(figure.__doc__) > 50 and figure.CATEGORY and kinds.label(figure), name
        assert set(stage.inputs(config, name)) <= known
        spec = stage.Spec.of(config, name)
        assert stage.Spec.model_validate(spec.plain()) == spec
        assert stage.plugins(config, name)[0] == f"figures.{name}"
