"""How long Snakemake takes to plan: a dry run of 5,000 jobs, and a run of the default that has nothing to do.

Both worlds look as after a run, without its work: datasets are listed, and where nothing is to be done, empty files
stand for the results (`snakemake --touch`). What is bounded is the time of one core, which is that of the clock on a
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

from pipeline_lib.config import specs
from pipeline_lib.config.load import parse_config
from pipeline_lib.datasets.images import write_dataset
from tests.workflow.conftest import ROOT, Workflow

DRY_RUN_SECONDS, NO_OP_SECONDS, JOBS = 15.0, 4.0, 5_000


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


def list_datasets(workflow: Workflow, config: dict[str, Any]) -> None:
    """Write the list of every dataset, and vouch for it, so that Snakemake plans the features too."""
    parsed = parse_config(config)
    for name in config["datasets"]:
        write_dataset(specs.dataset_spec(parsed, name), workflow.directory / "results/datasets" / name)
    workflow.snakemake("--touch", *(f"results/datasets/{name}/manifest.json" for name in config["datasets"]))


def pretend_to_run(workflow: Workflow) -> None:
    """Write an empty file for every output, and Snakemake's record of each job."""
    outputs = re.findall(r"^    output: (.*)$", workflow.snakemake("-n").stdout, re.MULTILINE)
    for path in (workflow.directory / name for line in outputs for name in line.split(", ")):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text("{}")
    workflow.snakemake("--touch", "--forceall")


def seconds(workflow: Workflow, *arguments: str) -> tuple[float, float, str]:
    """Return the core-seconds and the seconds of a Snakemake run, the best of three, and its output."""
    taken = []
    for _ in range(3):
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
        pretend_to_run(default)
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
            verdict = "no bound" if bound is None else f"at most {bound:.0f}: {'ok' if core <= bound else 'MISSED'}"
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
