"""Each method of the URL benchmark, from images to its row of the table, stage by stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.__main__ import main
from pipeline_lib.config import kinds, specs
from pipeline_lib.config.load import parse_config

SMALL = {kind: {"hidden": [32]} for kind in ("mcinfonce", "elk", "nivmf", "hib", "loss_prediction")}
# With u as it comes, samples in 512 dimensions are all but uniform: nothing is there to learn from.
SMALL["hib"] |= {"unc_start_value": 0.001}
SMALL |= {"sngp": {"features": 64}, "mc_dropout": {"mc_samples": 3}}
WORLD = {
    "upstream": {"dataset": "latin"},
    "downstream": ["greek"],
    "datasets": {
        "latin": {"kind": "glyphs", "script": "latin", "image_size": 32, "difficulty": [0.0, 0.1],
                  "per_class": {"train": 2, "test": 1}},
        "greek": {"kind": "glyphs", "script": "greek", "image_size": 32, "difficulty": [0.0, 0.1],
                  "per_class": {"test": 4}},
    },
    "backbones": {"small": {"kind": "trained", "architecture": "test_resnet"}},
    "variants": {"default": {}},
    "seeds": [1],
    "benchmark": {
        "seeds": [0],
        "training": {"epochs": 3, "batch_size": 32, "optimizer": "adamw", "learning_rate": 0.003, "warmup_epochs": 0,
                     "scale": [0.8, 1.0], "horizontal_flip": 0.0, "color_jitter": 0.0},
        "architectures": {
            name: {"architecture": f"test_{name}", "image_size": 32, "methods": {
                kind: {"method": {"kind": kind, **SMALL.get(kind, {})}} for kind in kinds.kinds("methods")
            }}
            for name in ("resnet", "vit")
        },
    },
    "evaluation": {"bootstrap": {"resamples": 20}, "averaged": ["greek"]},
}  # fmt: skip
CONFIG = parse_config(WORLD)


def run(stage: str, spec: Any, **options: Path) -> None:
    """Run a stage's command."""
    named = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    assert main([stage, "--spec", json.dumps(spec), *named]) == 0


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    for name in CONFIG.datasets:
        run("dataset", specs.dataset_spec(CONFIG, name), output=folder / name)
    return folder


@pytest.mark.parametrize("architecture", ["resnet", "vit"])
@pytest.mark.parametrize("method", kinds.kinds("methods"))
def test_a_method_learns_and_has_its_row_of_the_table(
    datasets: Path, tmp_path: Path, method: str, architecture: str
) -> None:
    model, images = f"{architecture}_{method}_seed0", datasets / "greek"
    run("method", specs.method_spec(CONFIG, model), dataset=datasets / "latin", output=tmp_path / "model")
    curve = [json.loads(line) for line in (tmp_path / "model/curve.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in curve] == [0, 1, 2, 3]
    assert curve[-1]["loss"] < curve[1]["loss"], "its loss falls"

    count = json.loads((images / "manifest.json").read_text())["facts"]["splits"]["test"]
    of_set = (CONFIG, model, "greek", "test")
    for view in ("eval", "centre_crop"):
        block = specs.features_spec(*of_set, view) | {"samples": [0, count], "epochs": [0, 1]}
        name = f"samples-00000000-{count:08d}_epochs-0000-0001"
        folder = tmp_path / view
        run("features", block, dataset=images, backbone=tmp_path / "model", output=folder / "blocks" / name)
        run("cache", specs.cache_spec(*of_set, view), dataset=images, view=folder)
    search = specs.neighbours_spec(*of_set) | {"mix": None}
    run("neighbours", search, features=tmp_path / "eval", output=tmp_path / "neighbours")
    inputs = {"dataset": images, "features": tmp_path, "neighbours": tmp_path / "neighbours"}
    run("baselines", specs.evaluation_spec(*of_set, None), **inputs, output=tmp_path / "evaluation")
    metrics = tmp_path / "metrics.csv"
    assert main(["metrics", "--evaluations", str(tmp_path / "evaluation"), "--output", str(metrics)]) == 0

    spec = specs.table_spec(CONFIG, "benchmark")
    spec["entries"] = [each for each in spec["entries"] if each["backbones"] == {"0": model}]
    files = [text for suffix in ("csv", "md", "tex") for text in (f"--{suffix}", str(tmp_path / f"table.{suffix}"))]
    table = ["table", "--name", "benchmark", "--spec", json.dumps(spec), "--metrics", str(metrics), *files]
    assert main(table) == 0
    (row,) = pd.read_csv(tmp_path / "table.csv").to_dict("records")
    assert (row["architecture"], row["method"]) == (architecture, method)
    assert np.isfinite([row["auroc_correct"], row["r1"], row["croppedHasBiggerUnc"]]).all()
