"""The tutorial's commands, in their order, on images that the test makes."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline_lib.__main__ import main
from pipeline_lib.config import kinds
from tests.unit.scoring_world import write_images, write_random_checkpoint

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs/tutorial.md").read_text()


def blocks(*languages: str) -> list[tuple[str, str]]:
    return re.findall(rf"^```({'|'.join(languages)})\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every block of the tutorial has run; what was printed is in printed.txt."""
    folder = tmp_path_factory.mktemp("tutorial")
    write_images(folder / "photos", 30)
    (folder / "photos" / "cat" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    write_random_checkpoint(folder / "results/checkpoints/resnet/default")
    names: dict[str, Any] = {}  # Python blocks build on each other
    with (
        contextlib.chdir(folder),
        open("printed.txt", "w") as printed,
        contextlib.redirect_stdout(printed),
    ):
        for language, text in blocks("sh", "python"):
            if language == "python":
                exec(compile(text, "tutorial.md", "exec"), names)
                continue
            words = shlex.split(text.replace("\\\n", ""))
            assert words[:3] == [".venv/bin/python", "-m", "pipeline_lib"]
            assert main(words[3:]) == 0
    return folder


def test_the_tutorial_ends_with_the_images_below_the_threshold_and_a_list_of_them(folder: Path) -> None:
    scores = pd.read_parquet(folder / "scores.parquet")
    threshold = np.nanquantile(scores["uncertainty"], 0.9)
    expected = scores["path"][scores["uncertainty"] <= threshold].tolist()
    assert 0 < len(expected) < 30 and len(scores) == 31
    assert (folder / "kept.txt").read_text().splitlines() == expected
    copied = sorted(path.relative_to(folder / "curated") for path in (folder / "curated").rglob("*.png"))
    assert copied == sorted(Path(path).relative_to("photos") for path in expected)
    review = sorted(path.name for path in (folder / "to_review").iterdir())
    worst = scores.sort_values("uncertainty", ascending=False)["path"].iloc[: len(review)]
    assert len(review) == 30 - len(expected)
    assert [name.split("_", 1)[1] for name in review] == [Path(path).name for path in worst]


def test_the_tutorial_shows_what_cannot_be_read_and_how_good_the_uncertainties_are(folder: Path) -> None:
    printed = (folder / "printed.txt").read_text()
    assert "torn.jpg" in printed and "27 of 31 images kept" in printed and "| uncertainty |" in printed
    assert (folder / "atlas.html").stat().st_size > 10_000 and (folder / "report/report.html").exists()


@pytest.mark.parametrize("text", [text for _, text in blocks("yaml")])
def test_the_sections_that_the_tutorial_shows_are_valid(text: str) -> None:
    for family, sections in yaml.safe_load(text).items():
        for section in sections.values():
            assert kinds.options_class(family, section["kind"]).model_validate(section)
