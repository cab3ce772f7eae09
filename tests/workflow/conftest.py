"""A copy of this repository with a tiny world, run once; tests edit the copy and ask what would run again."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]

TINY_WORLD: dict[str, Any] = {
    "results_dir": "results",
    "data_dir": "data",
    "upstream": {"dataset": "latin"},
    "downstream": ["greek"],
    "datasets": {
        "latin": {"kind": "glyphs", "script": "latin", "image_size": 32, "per_class": {"train": 4, "test": 2}},
        "greek": {"kind": "glyphs", "script": "greek", "image_size": 32, "per_class": {"test": 2}},
    },
    "backbones": {
        name: {"kind": "trained", "architecture": architecture, "image_size": 32, "epochs": 1}
        for name, architecture in [("resnet", "test_resnet"), ("vit", "test_vit")]
    },
    "variants": {"default": {}},
    "ablations": {
        "baseline": "default",
        "backbones": ["resnet"],
        "variants": {
            "leeway": {"training": {"leeway": 0.1}},
            "sgd": {"training": {"optimizer": "sgd"}},
            "mixup": {"view": "mixup"},
        },
    },
    "joint_training": {"backbone": "resnet", "options": {"epochs": 1, "batch_size": 32, "hidden": [16]}},
    "seeds": [1],
    "features": {
        "block_samples": 200,
        "block_epochs": 2,
        "views": {"train": {"epochs": 2}, "mixup": {"epochs": 1, "policy": {"kind": "mixup"}}},
    },
    "training": {"hidden": [16], "batch_size": 32, "episode_samples": 100, "warmup_episodes": 1},
    "evaluation": {"bootstrap": {"resamples": 20}, "deteriorated": ["greek"]},
}


class Workflow:
    """A working copy in which Snakemake can be run."""

    def __init__(self, directory: Path, config: dict[str, Any]) -> None:
        self.directory = directory
        for name in ("Snakefile", "pipeline_lib", "workflow", "envs"):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, directory / name)
        self.write_config(config)

    def copy(self, directory: Path) -> Workflow:
        """Return a copy in another folder, to be damaged; times are kept."""
        shutil.copytree(self.directory, directory, symlinks=True)
        return Workflow.at(directory)

    @classmethod
    def at(cls, directory: Path) -> Workflow:
        """Return the working copy that is there already."""
        workflow = object.__new__(cls)
        workflow.directory = directory
        return workflow

    def write_config(self, config: dict[str, Any]) -> None:
        (self.directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            self.command(*arguments), cwd=self.directory, capture_output=True, text=True, timeout=1000, check=False
        )
        if check and result.returncode:
            raise AssertionError(f"snakemake failed:\n{result.stdout[-3000:]}\n{result.stderr[-6000:]}")
        return result

    def planned(self, *arguments: str) -> dict[str, int]:
        """Return what would run now: the number of jobs by rule."""
        result = self.snakemake("-n", *arguments)
        output = result.stdout + result.stderr
        if "Nothing to be done" in output:
            return {}
        table = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\n\n", output, re.DOTALL)
        assert table, output
        jobs = {name: int(count) for name, count in (line.split() for line in table[1].splitlines())}
        return {name: count for name, count in jobs.items() if name not in ("all", "total")}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The tiny world, run to its end. Tests must leave it as they found it.

    It is run once, by the first process that needs it; each of the others has a copy.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return _run(tmp_path_factory.mktemp("tiny"))
    shared = tmp_path_factory.getbasetemp().parent
    with open(shared / "tiny.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (shared / "tiny").exists():
            return Workflow.at(shared / "tiny").copy(tmp_path_factory.mktemp("copied") / "tiny")
        finished = _run(tmp_path_factory.mktemp("tiny"))
        finished.copy(shared / "copying").directory.rename(shared / "tiny")
        return finished


def _run(directory: Path) -> Workflow:
    workflow = Workflow(directory, TINY_WORLD)
    workflow.snakemake()
    return workflow
