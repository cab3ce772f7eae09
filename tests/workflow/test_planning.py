"""The plan counts the jobs that Snakemake counts."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline_lib.config.load import parse_config
from pipeline_lib.core.jobs import Ref
from pipeline_lib.planning.plan import make_plan
from pipeline_lib.stages import dataset
from pipeline_lib.stages.graph import Graph
from pipeline_lib.stages.plan import processes
from tests.workflow.conftest import ROOT, TINY_WORLD, Workflow

# What the plan calls jobs of rules that are made for several artefacts, or one by one.
STAGE_OF = {"heads": "head", "evaluations": "evaluate_heads"}


@pytest.mark.parametrize(
    "config", [TINY_WORLD, yaml.safe_load((ROOT / "config.yaml").read_text())], ids=["tiny world", "default"]
)
def test_the_plan_counts_the_jobs_that_snakemake_counts(tmp_path: Path, config: dict[str, Any]) -> None:
    workflow = Workflow(tmp_path, config)
    parsed = parse_config(config)
    # The features are planned once the datasets are listed.
    graph = Graph(parsed, tmp_path / config["results_dir"], ROOT / "workflow/published")
    for name in config["datasets"]:
        dataset.run(graph.job(Ref.to("dataset", dataset=name)))
    counted: dict[str, int] = {}
    for rule, jobs in workflow.planned().items():
        stage = re.sub(r"^(table|figure)_.*", r"\1", STAGE_OF.get(rule, rule))
        counted[stage] = counted.get(stage, 0) + jobs

    planned: dict[str, int] = {}
    for row in make_plan(parsed, processes(parsed), {}, seconds=0).rows:
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
    # A head of each backbone, view and seed; two ablations of each backbone are evaluated together.
    assert {name: planned[name] for name in ("head", "evaluations")} == {"head": 6, "evaluations": 2}
