"""The workflow on a real Slurm of one node gives what it gives without one, also when Slurm's daemons are killed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.slurm.cluster import Cluster, missing_programs, wait_until
from tests.workflow.conftest import TINY_WORLD, Workflow
from tests.workflow.test_faults import digests

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(missing_programs()),
        reason=f"no {', '.join(missing_programs())} here; to run it: apt-get install slurm-wlm munge",
    ),
]

# What of the tiny world one backbone needs, so that its finished run says what must come out.
BACKBONE = "vit"
WORLD: dict[str, Any] = {key: value for key, value in TINY_WORLD.items() if key not in ("ablations", "joint_training")}
WORLD["backbones"] = {BACKBONE: TINY_WORLD["backbones"][BACKBONE]}
WORLD["evaluation"] = {"bootstrap": TINY_WORLD["evaluation"]["bootstrap"]}
# Every number, and a view of them of each kind, which are made beside Snakemake.
TARGETS = ("results/metrics.csv", "results/tables/zero_shot.csv", "results/plots/zero_shot.png")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        cluster = Cluster(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="module")
def finished(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The world, run by Slurm to its end."""
    workflow = Workflow(tmp_path_factory.mktemp("slurm"), WORLD)
    workflow.link_repository()
    result = subprocess.run(
        command(), cwd=workflow.directory, env=cluster.environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]
    (workflow.directory / "run.log").write_text(result.stdout + result.stderr)
    return workflow


def command() -> list[str]:
    """Return the command that runs the workflow by its Slurm profile, on a cluster without accounting."""
    return [
        *(sys.executable, "-m", "snakemake", "--workflow-profile", "workflow/profiles/slurm", "--jobs", "4"),
        *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "6", "--latency-wait", "5"),
        *("--", *TARGETS),
    ]


def running(cluster: Cluster) -> str:
    """Return the comments of the running jobs, which name their rules."""
    return cluster.squeue("--noheader", "--states=running", "--format=%k") or ""


def test_a_run_by_slurm_gives_the_same_bytes_as_one_without(finished: Workflow, tiny: Workflow) -> None:
    ours, reference = digests(finished), digests(tiny)
    # Of files with a place of their own, such as metrics.csv, the other backbone's part differs.
    artefacts = {path for path in ours if path.endswith("manifest.json") and not path.startswith("records/")}
    assert len(artefacts) == 23
    assert {path: ours[path] for path in artefacts} == {path: reference[path] for path in artefacts}
    rows, all_rows = (pd.read_csv(world.directory / "results/metrics.csv") for world in (finished, tiny))
    same = all_rows[all_rows.backbone == BACKBONE].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, same)


def test_jobs_ask_for_what_their_rules_say(finished: Workflow, cluster: Cluster) -> None:
    """Extraction asked for a GPU and got one; what needs none asked for none; views were made beside Snakemake."""
    log = (finished.directory / "run.log").read_text()
    jobs = re.findall(r"^ *rule (\w+):.*?resources: (.*?)$", log, re.MULTILINE | re.DOTALL)
    resources = {rule: dict(pair.split("=") for pair in line.split(", ") if "=" in pair) for rule, line in jobs}
    assert resources["training_features"]["gpu"] == "1"
    assert resources["training_features"]["mem_mb"] == "32000"
    assert resources["training_features"]["runtime"] == "240"
    assert "gpu" not in resources["evaluate_heads"]
    ended = re.findall(r" JobState=COMPLETED .* JOB_GRES=(\S+) .* Comment=rule_(\w+)_wildcards_", cluster.jobs())
    assert {gpu for gpu, rule in ended if rule == "training_features"} == {"gpu:1"}
    assert {gpu for gpu, rule in ended if rule == "evaluate_heads"} == {"(null)"}
    submitted = set(re.findall(r"slurm_logs/rule_(\w+)", log))
    expected = (
        "dataset backbone training_features evaluation_features neighbours baselines head evaluate_heads safe_retrieval"
    )
    assert submitted == set(expected.split())


def test_killed_daemons_lose_nothing(finished: Workflow, cluster: Cluster) -> None:
    """Both daemons die while a head trains; restarted, the same command ends with the same bytes."""
    before = digests(finished)
    for made in ("heads", f"evaluation/{BACKBONE}/heads", "safe_retrieval"):
        shutil.rmtree(finished.directory / "results" / made)
    (finished.directory / "results/metrics.csv").unlink()
    with open(finished.directory / "killed.log", "w") as log:
        run = subprocess.Popen(command(), cwd=finished.directory, env=cluster.environment, stdout=log, stderr=log)
        wait_until(lambda: "rule_head" in running(cluster), 300, (finished.directory / "killed.log").read_text)
        cluster.kill("slurmctld")
        cluster.kill("slurmd")
        time.sleep(3)
        cluster.start()
        run.wait(timeout=600)
    if run.returncode:
        subprocess.run(command(), cwd=finished.directory, env=cluster.environment, check=True, capture_output=True)
    assert digests(finished) == before
