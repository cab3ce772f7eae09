"""The URL benchmark in the workflow: each model is a job, and only those that a change concerns run again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from tests.workflow.conftest import TINY_WORLD, Workflow


def world_with(methods: dict[str, Any]) -> dict[str, Any]:
    """Return the tiny world, small enough to train two methods in seconds, with a benchmark."""
    config = copy.deepcopy(TINY_WORLD)
    del config["ablations"], config["joint_training"], config["features"]["views"]["mixup"]
    config["backbones"] = {"resnet": config["backbones"]["resnet"]}
    config["benchmark"] = {
        "seeds": [5],
        "training": {"epochs": 1, "warmup_epochs": 0, "batch_size": 32},
        "architectures": {"small": {"architecture": "test_resnet", "image_size": 32, "methods": methods}},
    }
    return config


def test_a_changed_method_is_trained_again_and_no_other(tmp_path: Path) -> None:
    methods = {"ce": {"method": {"kind": "cross_entropy"}}, "infonce": {"method": {"kind": "infonce"}}}
    world = Workflow(tmp_path, world_with(methods))
    models = [f"results/backbones/small_{name}_seed5/manifest.json" for name in methods]
    evaluation = "results/evaluation/small_infonce_seed5/baselines/latin/test/manifest.json"
    world.snakemake(*models, evaluation)
    assert "own_uncertainty" in (tmp_path / evaluation).with_name("metrics.csv").read_text()
    assert world.planned(*models) == {}

    methods["infonce"]["method"]["inv_temp"] = 3.0
    world.write_config(world_with(methods))
    assert world.planned(*models) == {"method": 1}
