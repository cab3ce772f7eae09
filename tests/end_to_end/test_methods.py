"""Each method of the URL benchmark, from images to its row of the table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.config import kinds
from pipeline_lib.config.load import parse_config
from pipeline_lib.core.jobs import Ref
from pipeline_lib.stages.graph import Graph
from pipeline_lib.tables import benchmark
from tests import jobs

ROOT = Path(__file__).parents[2]

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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return Graph(CONFIG, tmp_path_factory.mktemp("results"), ROOT / "workflow/published")


@pytest.mark.parametrize("architecture", ["resnet", "vit"])
@pytest.mark.parametrize("method", kinds.kinds("methods"))
def test_a_method_learns_and_has_its_row_of_the_table(
    world: Graph, tmp_path: Path, method: str, architecture: str
) -> None:
    model = f"{architecture}_{method}_seed0"
    evaluation = Ref.to("baselines", backbone=model, dataset="greek", split="test")
    jobs.make(world, evaluation)
    curve = (world.folder(Ref.to("backbone", backbone=model)) / "curve.jsonl").read_text().splitlines()
    losses = [json.loads(record)["loss"] for record in curve]
    assert len(losses) == 4 and losses[3] < losses[1], "its loss falls"

    metrics = jobs.run("metrics", {}, tmp_path / "metrics", evaluations=[world.folder(evaluation)])
    shown = benchmark.Spec.of(CONFIG).plain()
    shown["entries"] = [entry for entry in shown["entries"] if model in entry[2].values()]
    spec = {"name": "benchmark", "shows": shown}
    table = jobs.run("table", spec, tmp_path / "table", metrics=metrics / "metrics.csv")
    (row,) = pd.read_csv(table / "benchmark.csv").to_dict("records")
    assert (row["architecture"], row["method"]) == (architecture, method)
    assert np.isfinite([row["auroc_correct"], row["r1"], row["croppedHasBiggerUnc"]]).all()
