"""The plan counts the jobs that Snakemake counts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline_lib.config import specs
from pipeline_lib.config.load import parse_config
from pipeline_lib.datasets.images import write_dataset
from pipeline_lib.planning.plan import make_plan
from tests.workflow.conftest import ROOT, TINY_WORLD, Workflow

# Not part of the plan: tables and figures.
VIEWS = ("table_", "plot_")
# Rules of which there is one per view.
FAMILIES = ("ablation_heads",)


@pytest.mark.parametrize(
    "config", [TINY_WORLD, yaml.safe_load((ROOT / "config.yaml").read_text())], ids=["tiny world", "default"]
)
def test_the_plan_counts_the_jobs_that_snakemake_counts(tmp_path: Path, config: dict[str, Any]) -> None:
    workflow = Workflow(tmp_path, config)
    parsed = parse_config(config)
    # The features are planned once the datasets are listed.
    folder = Path(config["results_dir"], "datasets")
    for name in config["datasets"]:
        write_dataset(specs.dataset_spec(parsed, name), tmp_path / folder / name)
    workflow.snakemake("--touch", *(f"{folder}/{name}/manifest.json" for name in config["datasets"]))
    counted: dict[str, int] = {}
    for rule, jobs in workflow.planned().items():
        family = next((name for name in FAMILIES if rule.startswith(name)), rule)
        if not rule.startswith(VIEWS):
            counted[family] = counted.get(family, 0) + jobs

    planned: dict[str, int] = {}
    for row in make_plan(parsed, {}, seconds=0).rows:
        planned[row.stage] = planned.get(row.stage, 0) + row.jobs
    assert planned.pop("dataset") == len(config["datasets"])
    assert planned == counted


def test_backbones_and_views_may_have_names_that_run_into_one_another(tmp_path: Path) -> None:
    config = copy.deepcopy(TINY_WORLD)
    config["backbones"] = {"a": TINY_WORLD["backbones"]["resnet"], "a_b": TINY_WORLD["backbones"]["vit"]}
    config["joint_training"]["backbone"] = "a"
    config["features"]["views"] |= {"b_c": {"epochs": 1, "seed": 1}, "c": {"epochs": 1, "seed": 2}}
    config["ablations"]["backbones"] = ["a", "a_b"]
    config["ablations"]["variants"] = {"one": {"view": "b_c"}, "other": {"view": "c"}}
    planned = Workflow(tmp_path, config).planned("table_ablations")
    assert {name: jobs for name, jobs in planned.items() if "ablation" in name} == {
        "ablation_heads_b_c": 2,
        "ablation_heads_c": 2,
        "evaluate_ablations": 2,
        "table_ablations": 1,
    }
