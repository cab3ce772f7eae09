"""What a run leaves to take home, from the rules themselves: its checkpoint, and thresholds that keep their word."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from pipeline_lib.core import artefacts
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.evaluation.scores import read_scores
from tests.unit.test_docs import ROOT, blocks
from tests.workflow.conftest import Workflow
from tests.workflow.test_reruns import edited


def test_the_readmes_lines_say_of_an_image_what_the_run_cached_and_scored(
    tiny: Workflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = next(block for block in blocks((ROOT / "README.md").read_text(), "python") if "load(" in block)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(tiny.directory / "results")
    images = ImageDataset(tiny.directory / "results/datasets/greek", "test")
    scores = read_scores(tiny.directory / "results/evaluation/resnet/heads/default/greek/test", {})
    for position in (0, 50):
        images.image(position).save("photo.png")
        names: dict[str, Any] = {}
        exec(compile(lines, "README.md", "exec"), names)
        assert names["representation"].shape == (1, names["model"].config.backbone.dim)
        # float16 in the cache
        assert scores["sample_id"][position] == images.sample_id[position]
        assert names["uncertainty"].item() == pytest.approx(scores["uncertainty_seed1"][position], rel=5e-3)


def test_calibration_of_a_set_keeps_its_guarantees_over_a_thousand_draws(tiny: Workflow, tmp_path: Path) -> None:
    """On handwritten digits, whose neighbours even a network that has hardly been trained often gets right."""
    world, images, alpha = tiny.copy(tmp_path / "copy"), 80, 0.2
    digits = load_digits()
    for position in range(190):  # one block of images
        path = world.directory / f"data/digits/{digits.target[position]}/{position}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[position] * 15).astype(np.uint8)).save(path)
    config = edited("datasets.digits", {"kind": "folder", "path": "digits"}) | {"downstream": ["greek", "digits"]}
    config["evaluation"]["calibration"] = {"images": images, "alpha": alpha}
    world.write_config(config)
    folder = "results/calibration/resnet/default/digits/test"
    world.snakemake(f"{folder}/manifest.json")

    made = artefacts.read(world.directory / folder, "calibrate")
    assert {"images": images, "alpha": alpha, "draws": 1000}.items() <= made.spec["calibration"].items()
    assert {"calibration.json", "calibration_seed1.json", "reliability.png", "scores.csv"} <= made.files.keys()
    thresholds = pd.read_csv(world.directory / folder / "thresholds.csv").set_index("method")
    thresholds = thresholds[thresholds["heads"] == "all"]
    assert set(thresholds["simulated_draws"]) == {1000}
    tested, conformal = thresholds.loc["learn_then_test"], thresholds.loc["conformal_risk_control"]
    assert tested["simulated_above_alpha"] <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 1000)
    # The error at the k-th smallest of n is distributed as Beta(k, n + 1 - k); the bound is met up to the k-th wrong
    # image.
    k = math.floor(alpha * (images + 1))
    deviation = math.sqrt(k * (images + 1 - k) / ((images + 1) ** 2 * (images + 2)))
    assert conformal["simulated_error"] <= alpha + 3 * deviation / math.sqrt(1000)
    assert conformal["simulated_error"] > alpha / 2, "it is not safe by accepting next to nothing"
