"""How long Snakemake takes to plan: a dry run of 5,000 jobs, and a run of the default that has nothing to do.

Both worlds look as after a run, without its work: datasets are listed, and where nothing is to be done, artefacts
without content stand for the results. What is bounded is the time of one core, which is that of the clock on a
machine with nothing else to do; both are printed.
"""

from __future__ import annotations

import os
import re
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from pipeline_lib.config.load import parse_config
from pipeline_lib.core.artefacts import MANIFEST
from pipeline_lib.core.jobs import Ref
from pipeline_lib.stages import dataset
from pipeline_lib.stages.graph import Graph
from pipeline_lib.stages.targets import targets
from tests.workflow.conftest import ROOT, Workflow

DRY_RUN_SECONDS, NO_OP_SECONDS, JOBS = 12.5, 2.5, 5_000


def default_world() -> dict[str, Any]:
    """Return the embedded default."""
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def large_world() -> dict[str, Any]:
    """Return the default with four backbones and seven epochs of augmented images, cut into 5,000 jobs.

    It has the shape of the paper's largest world, ImageNet-21k with four ViTs.
    """
    config = default_world()
    config["datasets"]["latin"] |= {"image_size": 32, "per_class": {"train": 124, "test": 8}}
    first = next(iter(config["backbones"].values()))
    names = [*config["backbones"], "third", "fourth"][:4]
    config["backbones"] = {name: config["backbones"].get(name, first) for name in names}
    config["features"]["views"]["train"]["epochs"] = 7
    config["features"] |= {"block_epochs": 1, "block_samples": 53}
    return config


def many_sets_world() -> dict[str, Any]:
    """Return the default with 27 test sets in blocks of four images: 5,000 jobs too, most with two outputs."""
    config = default_world()
    characters = {"kind": "glyphs", "image_size": 32}
    names = [f"set{number}" for number in range(27)]
    scripts = ["greek", "cyrillic", "armenian"]
    config["datasets"] = {"latin": {**characters, "script": "latin", "per_class": {"train": 24, "test": 4}}}
    for number, name in enumerate(names):
        options = {"script": scripts[number % 3], "per_class": {"test": 4}, "seed": number}
        config["datasets"][name] = characters | options
    config["downstream"] = names
    config["evaluation"] |= {"averaged": names[:3], "deteriorated": names[:1], "projection": {"dataset": names[0]}}
    config["features"] |= {"block_samples": 4}
    return config


def graph_of(workflow: Workflow, config: dict[str, Any]) -> Graph:
    """Return what is stale in a working copy."""
    return Graph(parse_config(config), workflow.directory / "results", ROOT / "workflow/published")


def list_datasets(workflow: Workflow, config: dict[str, Any]) -> None:
    """List every dataset, so that Snakemake plans the features too."""
    for name in config["datasets"]:
        dataset.run(graph_of(workflow, config).job(Ref.to("dataset", dataset=name)))


def pretend_to_run(workflow: Workflow, config: dict[str, Any]) -> None:
    """Write artefacts without content that say that they are what the config asks for."""
    graph = graph_of(workflow, config)
    for ref in graph.behind(targets(graph.config)):
        if ref.stage != "dataset":
            job = graph.job(ref)
            with job.writing() as draft:
                for file in (*job.targets, *graph.outputs(ref)):
                    if file.name != MANIFEST:
                        (draft.path / file.name).touch()


def seconds(workflow: Workflow, *arguments: str) -> tuple[float, float, str]:
    """Return the core-seconds and the seconds of a Snakemake run, the better of two, and its output."""
    taken = []
    for _ in range(2):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        result = workflow.snakemake(*arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        core = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        taken.append((core, time.perf_counter() - start, result.stdout + result.stderr))
    return min(taken)


def _world(directory: Path, config: dict[str, Any]) -> Workflow:
    """Return a working copy whose datasets are listed."""
    directory.mkdir()
    workflow = Workflow(directory, config)
    list_datasets(workflow, config)
    return workflow


def _jobs(workflow: Workflow) -> int:
    """Return how many jobs a run would have."""
    return int(re.search(r"^total +(\d+)", workflow.snakemake("-n", "--quiet", "rules").stdout, re.MULTILINE)[1])


def main() -> int:
    """Measure, print one line per bound, and return 1 when one is missed."""
    missed = False
    with tempfile.TemporaryDirectory() as directory:
        large = _world(Path(directory, "large"), large_world())
        many_sets = _world(Path(directory, "many_sets"), many_sets_world())
        default = _world(Path(directory, "default"), default_world())
        pretend_to_run(default, default_world())
        jobs = {id(workflow): _jobs(workflow) for workflow in (large, many_sets)}
        dry_run, quiet = ("-n",), ("-n", "--quiet", "rules")
        for name, workflow, arguments, bound in (
            (f"dry run of {jobs[id(large)]:,} jobs, quiet", large, quiet, DRY_RUN_SECONDS),
            (f"dry run of {jobs[id(large)]:,} jobs, each printed", large, dry_run, DRY_RUN_SECONDS),
            (f"dry run of {jobs[id(many_sets)]:,} jobs of 28 sets, quiet", many_sets, quiet, None),
            ("no-op run of the default", default, (), NO_OP_SECONDS),
        ):
            core, clock, output = seconds(workflow, *arguments)
            if "-n" not in arguments and "Nothing to be done" not in output:
                raise AssertionError(f"there was something to do:\n{output}")
            missed |= bound is not None and core > bound
            verdict = "no bound" if bound is None else f"at most {bound:.1f}: {'ok' if core <= bound else 'MISSED'}"
            load = os.getloadavg()[0]
            print(
                f"planning {name:43} {core:5.1f} s of a core ({verdict}), {clock:.1f} s by the clock "
                f"at a load of {load:.1f} on {os.cpu_count()} cores",
                flush=True,
            )
        if min(jobs.values()) < JOBS:
            raise AssertionError(f"a large world has {min(jobs.values())} jobs only")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
