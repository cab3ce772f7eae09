"""The workflow can be used from elsewhere: as a module, deployed by snakedeploy, on another folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline_lib.config.load import load_config
from pipeline_lib.stages import head
from tests.workflow.conftest import ROOT, TINY_WORLD

# Without what other tests plan often: two datasets and a backbone make every kind of job but trained methods.
WORLD: dict[str, Any] = {key: value for key, value in TINY_WORLD.items() if key not in ("ablations", "joint_training")}
# What snakedeploy 0.17.1 writes, but for the clone's place, which docs/cluster.md says to fill in.
DEPLOYED = """
from snakemake.utils import min_version


min_version("6.10.0")


configfile: "config/config.yaml"


# declare pretrained_visual_uncertainties as a module
module pretrained_visual_uncertainties:
    snakefile:
        "{root}/workflow/Snakefile"
    config:
        config


# use all rules from pretrained_visual_uncertainties
use rule * from pretrained_visual_uncertainties
"""
MODULE = """
module uncertainties:
    snakefile:
        "{root}/Snakefile"
    config:
        config


use rule * from uncertainties as uncertainties_*


rule mine:
    default_target: True
    input:
        "results/metrics.csv",
    output:
        "mine.txt",
    shell:
        "wc {{input}} > {{output}}"
"""


def planned(directory: Path, *arguments: str) -> dict[str, int]:
    """Return what a dry run in a folder would run: the number of jobs by rule."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "2", "--quiet", "rules", *arguments]
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-3000:]
    table = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\n\n", output, re.DOTALL)
    assert table, output
    return {name: int(count) for name, count in (line.split() for line in table[1].splitlines())}


def write(path: Path, content: str | dict[str, Any]) -> None:
    """Write text, or a mapping as YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))


def test_another_workflow_uses_it_as_a_module(tmp_path: Path) -> None:
    write(tmp_path / "Snakefile", MODULE.format(root=ROOT))
    write(tmp_path / "config.yaml", WORLD)
    jobs = planned(tmp_path, "--configfile", "config.yaml")
    assert jobs["mine"] == 1
    assert jobs["uncertainties_dataset"] == 2
    assert jobs["uncertainties_head"] == 2


def test_a_module_without_a_config_runs_the_embedded_default(tmp_path: Path) -> None:
    write(tmp_path / "Snakefile", MODULE.format(root=ROOT))
    # One job each: what is made together has rules of its own, which a module leaves out.
    assert planned(tmp_path)["uncertainties_head"] == len(head.wanted(load_config(ROOT / "config.yaml")))


def test_what_snakedeploy_takes_from_the_repository_runs_as_it_is(tmp_path: Path) -> None:
    """It copies the licence and `config/`, with files in place of links; without one it writes an empty file."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    write(tmp_path / "workflow/Snakefile", DEPLOYED.format(root=ROOT))
    default = yaml.safe_load((ROOT / "config.yaml").read_text())
    assert yaml.safe_load((tmp_path / "config/config.yaml").read_text()) == default
    jobs = planned(tmp_path)
    assert jobs["dataset"] == len(default["datasets"])
    assert jobs["all"] == 1
    assert (ROOT / "LICENSE").exists()


def test_rules_without_the_library_say_what_to_do(tmp_path: Path) -> None:
    """As from a module of GitHub, where Snakemake fetches the rules and nothing else."""
    for name in ("Snakefile", "config.yaml", "workflow/rules/common.smk"):
        write(tmp_path / name, (ROOT / name).read_text())
    result = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "clone the repository" in result.stdout + result.stderr


def test_the_catalogue_finds_what_standardised_usage_asks_for_and_how_to_run_it() -> None:
    assert (ROOT / "workflow/Snakefile").exists()
    assert (ROOT / "config/README.md").exists()
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage == {"software-stack-deployment": {"conda": True}, "report": True}
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        assert path.stem in ("common", "summary") or "conda:" in path.read_text()


def test_it_runs_on_another_folder_with_its_own_snakefile(tmp_path: Path) -> None:
    write(tmp_path / "world.yaml", WORLD)
    elsewhere = ("--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path / "there"))
    assert planned(tmp_path, *elsewhere, "--configfile", "world.yaml")["dataset"] == 2
    assert (tmp_path / "there/.snakemake").is_dir()


@pytest.mark.parametrize("name", ["default", "slurm", "kubernetes"])
def test_every_key_of_a_profile_is_explained(name: str) -> None:
    """A comment stands beside each key, or in the line above."""
    lines = ["", *(ROOT / "workflow/profiles" / name / "config.yaml").read_text().splitlines()]
    for before, line in pairwise(lines):
        if re.match(r"[a-z-]+:", line):
            assert "#" in line or before.startswith("#"), f"{name}: {line}"
