"""A tiny world, run once and shared; tests that only read it use it as it is, others take a copy."""

from __future__ import annotations

import contextlib
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

from pipeline_lib.config.load import parse_config
from pipeline_lib.stages.graph import Graph
from pipeline_lib.stages.targets import targets
from tests.jobs import make

ROOT = Path(__file__).parents[2]
TINY_WORLD: dict[str, Any] = yaml.safe_load((ROOT / "workflow/configs/tiny.yaml").read_text())


class Workflow:
    """A working directory in which Snakemake is run on this repository's Snakefile."""

    snakefile = ROOT / "Snakefile"

    def __init__(self, directory: Path, config: dict[str, Any] | None = None) -> None:
        self.directory = directory
        if config is not None:
            self.write_config(config)

    def copy(self, directory: Path) -> Workflow:
        """Return a copy in another folder, to be damaged; times are kept."""
        shutil.copytree(self.directory, directory, symlinks=True)
        return Workflow(directory)

    def link_repository(self) -> None:
        """Let the folder look like a clone, to profiles that name files of the repository."""
        for name in ("Snakefile", "workflow", "pipeline_lib", "envs"):
            (self.directory / name).symlink_to(ROOT / name)

    def write_config(self, config: dict[str, Any]) -> None:
        (self.directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def command(self, *arguments: str) -> list[str]:
        snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(self.snakefile), "--cores", "2"]
        return [*snakemake, "--configfile", "config.yaml", *arguments]

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        # Files named alone would be taken for further config files.
        options = ["--", *arguments] if arguments and not arguments[0].startswith("-") else arguments
        result = subprocess.run(
            self.command(*options), cwd=self.directory, capture_output=True, text=True, timeout=1000, check=False
        )
        if check and result.returncode:
            raise AssertionError(f"snakemake failed:\n{result.stdout[-3000:]}\n{result.stderr[-6000:]}")
        return result

    def planned(self, *arguments: str) -> dict[str, int]:
        """Return what would run now: the number of jobs by rule, bundles by the name of their kind."""
        result = self.snakemake("-n", *(("--", *arguments) if arguments and arguments[0][0] != "-" else arguments))
        output = result.stdout + result.stderr
        if "Nothing to be done" in output:
            return {}
        table = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\n\n", output, re.DOTALL)
        assert table, output
        jobs: dict[str, int] = {}
        for name, count in (line.split() for line in table[1].splitlines()):
            if name not in ("all", "total"):
                kind = re.sub(r"^(head|evaluation)_.*", r"\1s", name) if not name.endswith("features") else name
                jobs[kind] = jobs.get(kind, 0) + int(count)
        return jobs


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The tiny world, run to its end. Tests must leave it as they found it.

    It is run once, by the first process that needs it; each of the others has a copy.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return finished(tmp_path_factory.mktemp("tiny"))
    shared = tmp_path_factory.getbasetemp().parent
    with open(shared / "tiny.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (shared / "tiny").exists():
            return Workflow(shared / "tiny").copy(tmp_path_factory.mktemp("copied") / "tiny")
        made = finished(tmp_path_factory.mktemp("tiny"))
        made.copy(shared / "copying").directory.rename(shared / "tiny")
        return made


def finished(directory: Path) -> Workflow:
    """Make the world in this process: Snakemake would start one for each of its 70 jobs, and make the same bytes."""
    directory.mkdir(exist_ok=True)
    workflow = Workflow(directory, TINY_WORLD)
    graph = Graph(
        parse_config({**TINY_WORLD, "results_dir": str(directory / "results")}),
        directory / "results",
        ROOT / "workflow/published",
    )
    with contextlib.chdir(directory):
        make(graph, *targets(graph.config))
    return workflow
