"""A job ends when the Snakemake that started it is killed, and takes no notice of any other process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from pipeline_lib.core import runner

JOB = "from pipeline_lib.core.runner import end_with_runner; end_with_runner('features'); print(flush=True); input()"


def start_job(runner_name: str) -> subprocess.Popen[str]:
    """Start a job that ends by itself only when its input is closed."""
    environment = os.environ | {runner.VARIABLE: runner_name}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", JOB], env=environment, text=True, **pipes)


@pytest.mark.parametrize("has_died_before", [False, True])
def test_a_job_ends_with_one_line_when_its_runner_is_killed(has_died_before: bool) -> None:
    snakemake = subprocess.Popen(["sleep", "60"])
    if has_died_before:
        snakemake.kill()
        snakemake.wait()
    job = start_job(f"{socket.gethostname()}:{snakemake.pid}")
    if not has_died_before:
        job.stdout.readline()
        assert job.poll() is None
        snakemake.kill()
        snakemake.wait()
    assert job.wait(timeout=30) == 1
    (line,) = job.stderr.read().splitlines()
    assert line.startswith("features: error: the snakemake that started this job was killed")


@pytest.mark.parametrize("name", ["", "another-machine:1", f"{socket.gethostname()}:"])
def test_a_job_without_a_runner_here_watches_nothing(name: str) -> None:
    job = start_job(name)
    _, errors = job.communicate("\n", timeout=30)
    assert (job.returncode, errors) == (0, "")


def test_a_job_whose_runner_lives_goes_on_to_its_end() -> None:
    job = start_job(runner.this_process())
    _, errors = job.communicate("\n", timeout=30)
    assert (job.returncode, errors) == (0, "")
