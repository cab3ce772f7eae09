"""Jobs that run side by side on one machine compute on different GPUs."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Takes one of several pretended GPUs, says which, and keeps it until its input ends.
JOB = """
import os, sys
from pipeline_lib.core.gpu_slots import take_gpu
{first}
gpu = take_gpu({count})
assert os.environ["CUDA_VISIBLE_DEVICES"] == gpu == take_gpu({count})
print(gpu, flush=True)
{then}
sys.stdin.read()
"""


class Jobs:
    """Starts real processes; those that are left are killed at the end."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack

    def start(self, count: int = 2, then: str = "", first: str = "", **environment: str) -> subprocess.Popen[str]:
        """Start a job that sees so many GPUs."""
        job = subprocess.Popen(
            [sys.executable, "-c", JOB.format(count=count, then=then, first=first)],
            env=clean_environment() | {"PIPELINE_GPU_LOCKS": str(self._folder)} | environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._stack.enter_context(job)
        self._stack.callback(job.kill)
        return job


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what a scheduler or a user may have said about GPUs."""
    said = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
    return {name: value for name, value in os.environ.items() if name not in said}


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    with ExitStack() as stack:
        yield Jobs(tmp_path / "locks", stack)


def gpu_of(job: subprocess.Popen[str]) -> str:
    return job.stdout.readline().strip()


def test_jobs_side_by_side_take_different_gpus(jobs: Jobs) -> None:
    started = [jobs.start(count=4) for _ in range(4)]
    assert sorted(gpu_of(job) for job in started) == ["0", "1", "2", "3"]


def test_a_job_waits_until_another_ends_and_says_so(jobs: Jobs) -> None:
    first = jobs.start(count=1)
    assert gpu_of(first) == "0"
    second = jobs.start(count=1)
    assert second.stderr.readline() == "waiting for a GPU: other jobs compute on 0\n"
    first.stdin.close()
    assert gpu_of(second) == "0"


def test_a_killed_job_leaves_its_gpu_to_the_next_one(jobs: Jobs) -> None:
    first = jobs.start(count=1)
    gpu_of(first)
    second = jobs.start(count=1)
    second.stderr.readline()
    first.kill()
    assert gpu_of(second) == "0"


def test_a_process_that_a_killed_job_leaves_behind_keeps_no_gpu(jobs: Jobs) -> None:
    """Decoders are forked; one that outlives its job for a while must not keep the GPU."""
    fork = "child = os.fork()\nif not child:\n    import time; time.sleep(20); os._exit(0)\nprint(child, flush=True)"
    first = jobs.start(count=1, then=fork)
    gpu_of(first)
    child = int(first.stdout.readline())
    try:
        first.kill()
        first.wait()
        assert gpu_of(jobs.start(count=1)) == "0"
        os.kill(child, 0)  # it is still there
    finally:
        os.kill(child, 9)


def test_only_gpus_that_are_visible_are_taken(jobs: Jobs) -> None:
    started = [jobs.start(count=2, CUDA_VISIBLE_DEVICES="5, GPU-8a/1") for _ in range(2)]
    assert sorted(gpu_of(job) for job in started) == ["5", "GPU-8a/1"]


def test_jobs_of_a_scheduler_do_not_wait_for_each_other(jobs: Jobs) -> None:
    """Slurm hides other jobs' GPUs and numbers each job's own from 0."""
    started = [jobs.start(count=1, CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID=number) for number in ("7", "8")]
    assert [gpu_of(job) for job in started] == ["0", "0"]


def test_a_folder_that_cannot_be_used_is_named_with_what_to_do(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    job = jobs.start(PIPELINE_GPU_LOCKS=str(tmp_path / "file"))
    message = job.stderr.read()
    assert f"{tmp_path}/file/gpu-0.lock" in message
    assert "set PIPELINE_GPU_LOCKS to a folder" in message


def test_all_users_may_lock_what_one_has_made_in_a_shared_folder(jobs: Jobs, tmp_path: Path) -> None:
    job = jobs.start(first="os.umask(0o022)", SLURM_JOB_ID="7", then="print(oct(os.umask(0)), flush=True)")
    assert gpu_of(job) == "0"
    assert job.stdout.readline() == "0o22\n"
    folder = tmp_path / "locks/SLURM_JOB_ID-7"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, folder / "gpu-0.lock")]
    assert modes == [0o777, 0o777, 0o666]


def test_locks_in_a_folder_of_this_user_are_for_nobody_else(jobs: Jobs, tmp_path: Path) -> None:
    assert gpu_of(jobs.start(PIPELINE_GPU_LOCKS="", TMPDIR=str(tmp_path))) == "0"
    folder = tmp_path / f"pretrained-visual-uncertainties-{os.getuid()}"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "gpu-0.lock")]
    assert modes == [0o700, 0o600]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start jobs of two users")
@pytest.mark.parametrize("mode", [0o777, 0o1777], ids=["for all", "sticky"])
def test_jobs_of_two_users_take_different_gpus_and_wait_for_each_other(jobs: Jobs, mode: int) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to other users
        Path(folder).chmod(mode)

        def start(user: int) -> subprocess.Popen[str]:
            return jobs.start(first=f"os.umask(0o022); os.setuid({user})", PIPELINE_GPU_LOCKS=folder)

        first, second = start(1001), start(1002)
        taken = gpu_of(first)
        assert {taken, gpu_of(second)} == {"0", "1"}
        third = start(1002)
        assert third.stderr.readline() == "waiting for a GPU: other jobs compute on 0, 1\n"
        first.stdin.close()
        assert gpu_of(third) == taken


@pytest.mark.slow
def test_a_stage_computes_on_the_gpu_that_it_took(tmp_path: Path) -> None:
    """torch is told of two GPUs, of which another process has the first."""
    script = """
import os, subprocess, sys
import torch
torch.cuda.device_count = lambda: 2
from pipeline_lib.core.device import choose_device
assert choose_device("cpu").type == "cpu" and "CUDA_VISIBLE_DEVICES" not in os.environ
other = subprocess.Popen(
    [sys.executable, "-c", "import sys; from pipeline_lib.core.gpu_slots import take_gpu; "
     "print(take_gpu(2), flush=True); "
     "sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert other.stdout.readline() == b"0\\n"
assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
"""
    environment = clean_environment() | {"PIPELINE_GPU_LOCKS": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, cwd=ROOT, check=True)


@pytest.mark.slow
def test_a_model_that_a_user_loads_goes_where_it_was_sent_and_takes_no_gpu_from_others(tmp_path: Path) -> None:
    """torch is told of two GPUs, both of which jobs have."""
    script = """
import os
import torch
torch.cuda.device_count = lambda: 2
from pipeline_lib.core.device import find_device
assert find_device("auto") == torch.device("cuda") and find_device("cuda:1") == torch.device("cuda:1")
assert "CUDA_VISIBLE_DEVICES" not in os.environ and not os.listdir(os.environ["PIPELINE_GPU_LOCKS"])
"""
    environment = clean_environment() | {"PIPELINE_GPU_LOCKS": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, cwd=ROOT, check=True)
