"""Executors without a scheduler behind them give the same bytes: cluster-generic, and the profile for Kubernetes.

There is no Kubernetes here: a `kubectl` of our own keeps what it is given, runs the pod's command and answers as
kubectl does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.conftest import Workflow
from tests.workflow.test_faults import digests

pytestmark = pytest.mark.slow

REMOVED = ("heads/vit", "evaluation/vit/heads", "safe_retrieval/vit")
TARGET = "results/evaluation/vit/heads/default/greek/test/manifest.json"
REMADE = {
    "heads/vit/default/seed1/manifest.json",
    "evaluation/vit/heads/default/latin/test/manifest.json",
    "evaluation/vit/heads/default/greek/test/manifest.json",
}

SUBMIT = """#!/bin/sh
# Arguments: threads, memory, GPUs, script. Prints a job's identifier.
echo "$1 $2 $3" >> submitted.txt
nohup sh "$4" > "$4.log" 2>&1 &
echo $!
"""

KUBECTL = """#!{python}
import json, os, subprocess, sys, uuid
from pathlib import Path

jobs = Path({folder!r})
verb, *arguments = sys.argv[1:]
if verb == "create":
    assert arguments == ["--filename=-", "--output=jsonpath={{.metadata.name}}"]
    job = json.load(sys.stdin)
    name = job["metadata"]["generateName"] + uuid.uuid4().hex[:5]
    (jobs / f"{{name}}.json").write_text(json.dumps(job))
    container = job["spec"]["template"]["spec"]["containers"][0]
    runner = f"\\"$@\\"; echo $? > {{jobs}}/{{name}}.tmp; mv {{jobs}}/{{name}}.tmp {{jobs}}/{{name}}.rc"
    with open(jobs / f"{{name}}.log", "w") as log:
        subprocess.Popen(["sh", "-c", runner, "sh", *container["command"]], cwd=container["workingDir"], stdout=log,
                         stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    print(name)
elif verb == "get":
    assert arguments[0] == "job" and arguments[2:] == ["--ignore-not-found", "--output=json"]
    ended = jobs / f"{{arguments[1]}}.rc"
    if (jobs / f"{{arguments[1]}}.json").exists():
        failed = ended.exists() and ended.read_text().strip() != "0"
        status = {{"active": 1}} if not ended.exists() else {{"failed": 1}} if failed else {{"succeeded": 1}}
        print(json.dumps({{"status": status}}))
elif verb == "delete":
    assert arguments[0] == "job" and arguments[-2:] == ["--ignore-not-found", "--wait=false"]
    for name in arguments[1:-2]:
        (jobs / f"{{name}}.json").unlink(missing_ok=True)
"""


@pytest.fixture
def unfinished(tiny: Workflow, tmp_path: Path) -> Workflow:
    """A copy of the tiny world, without what a backbone's head needs to be trained and evaluated again."""
    workflow = tiny.copy(tmp_path / "world")
    workflow.link_repository()
    for folder in REMOVED:
        shutil.rmtree(workflow.directory / "results" / folder)
    return workflow


def run(workflow: Workflow, *arguments: str, **environment: str) -> None:
    command = [sys.executable, "-m", "snakemake", *arguments, "--latency-wait", "5", "--", TARGET]
    result = subprocess.run(
        command, cwd=workflow.directory, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]


def assert_remade(workflow: Workflow, reference: Workflow) -> None:
    """What was removed is there again with the same bytes, and nothing else was touched."""
    ours, theirs = digests(workflow), digests(reference)
    missing = {path for path in theirs if path not in ours}
    assert {path: ours[path] for path in ours} == {path: theirs[path] for path in theirs if path not in missing}
    assert ours.keys() >= REMADE
    assert all(path.startswith("safe_retrieval/vit/") for path in missing)


def test_cluster_generic_needs_but_a_command_that_submits(unfinished: Workflow, tiny: Workflow) -> None:
    (unfinished.directory / "submit.sh").write_text(SUBMIT)
    run(
        unfinished,
        *("--executor", "cluster-generic", "--jobs", "2", "--default-resources", "mem_mb=4000", "runtime=60", "gpu=0"),
        *("--cluster-generic-submit-cmd", "sh submit.sh {threads} {resources.mem_mb} {resources.gpu}"),
    )
    assert_remade(unfinished, tiny)
    asked = (unfinished.directory / "submitted.txt").read_text().splitlines()
    assert sorted(asked) == ["1 16000 0", "1 16000 0", "1 16000 1"]


def test_the_profile_of_kubernetes_runs_jobs_with_what_they_ask_for(
    unfinished: Workflow, tiny: Workflow, tmp_path: Path
) -> None:
    jobs = fake_kubectl(tmp_path)
    path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    run(unfinished, "--workflow-profile", "workflow/profiles/kubernetes", PATH=path)
    assert_remade(unfinished, tiny)
    manifests = [json.loads(manifest.read_text()) for manifest in sorted(jobs.glob("*.json"))]
    pods = [manifest["spec"]["template"]["spec"] for manifest in manifests]
    limits = [pod["containers"][0]["resources"]["limits"] for pod in pods]
    assert len(limits) == 3
    assert {"memory": "16000M", "nvidia.com/gpu": 1} in limits  # the head
    assert limits.count({"memory": "16000M"}) == 2  # the evaluations
    assert {pod["activeDeadlineSeconds"] for pod in pods} == {12 * 3600, 4 * 3600}
    assert all(pod["volumes"][0]["persistentVolumeClaim"]["claimName"] for pod in pods)
    assert all(pod["containers"][0]["workingDir"] == str(unfinished.directory) for pod in pods)


def test_jobs_of_kubernetes_are_cancelled_and_a_job_that_is_gone_has_failed(tmp_path: Path) -> None:
    jobs = fake_kubectl(tmp_path)
    (tmp_path / "script.sh").write_text("sleep 3\n")
    profile = Path(__file__).parents[2] / "workflow/profiles/kubernetes"
    environment = os.environ | {"PATH": os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])}

    def call(*command: str) -> str:
        return subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout

    asked: dict[str, Any] = {"image": "i", "claim": "c", "mount": "/m", "threads": 1, "cpus-per-task": 8}
    options = [f"--{name}={value}" for name, value in (asked | {"memory-mb": 10, "minutes": 1, "gpus": 0}).items()]
    name = call(sys.executable, f"{profile}/jobs.py", "submit", *options, "script.sh").strip()
    (manifest,) = jobs.glob("*.json")
    container = json.loads(manifest.read_text())["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"] == {"requests": {"cpu": 8, "memory": "10M"}, "limits": {"memory": "10M"}}
    assert call(sys.executable, f"{profile}/jobs.py", "status", name) == "running\n"
    call(f"{profile}/cancel.sh", name, "another")
    assert call(sys.executable, f"{profile}/jobs.py", "status", name) == "failed\n"


def fake_kubectl(folder: Path) -> Path:
    """Write a `kubectl` into the folder's `bin`; returns where it keeps its jobs."""
    jobs = folder / "jobs"
    jobs.mkdir()
    program = folder / "bin/kubectl"
    program.parent.mkdir()
    program.write_text(KUBECTL.format(python=sys.executable, folder=str(jobs)))
    program.chmod(0o755)
    return jobs
