"""Kill the run, damage its files: the same command again completes, and nothing in the result tells of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from pipeline_lib.core.artefacts import MANIFEST, file_digest, read
from tests.namespace import in_namespace
from tests.workflow.conftest import TINY_WORLD, Workflow


def digests(workflow: Workflow) -> dict[str, str]:
    """Return the checksum of every artefact, table and plot of a run (not of its logs and timings)."""
    results = workflow.directory / "results"
    files = [*results.rglob(MANIFEST), results / "metrics.csv", *results.glob("tables/*"), *results.glob("plots/*")]
    return {str(path.relative_to(results)): file_digest(path) for path in files}


def kill_when(workflow: Workflow, condition: Callable[[Path], bool]) -> None:
    """Start the workflow and `kill -9` its whole process group as soon as the condition holds for its results."""
    with open(workflow.directory / "killed.log", "w") as log:
        process = subprocess.Popen(
            workflow.command(), cwd=workflow.directory, stdout=log, stderr=log, start_new_session=True
        )
        deadline = time.monotonic() + 900
        try:
            while not condition(workflow.directory / "results"):
                assert process.poll() is None, (workflow.directory / "killed.log").read_text()[-3000:]
                assert time.monotonic() < deadline
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
        finally:
            process.kill()
            process.wait()


def extracting(results: Path) -> bool:
    """Some blocks are done, and a job is busy with another."""
    done = list(results.glob("features/*/*/*/*/blocks/*/manifest.json"))
    return len(done) >= 6 and b"pipeline_lib\0features" in running_commands(results)


def training_heads(results: Path) -> bool:
    return any(results.glob("heads/*/*/*.live.jsonl"))


def running_commands(results: Path) -> bytes:
    """Return the command lines of the processes that work in the folder of these results."""
    commands = b""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == results.parent:
                commands += (process / "cmdline").read_bytes()
        except OSError:
            continue
    return commands


def test_killed_runs_go_on_with_the_same_command_and_give_the_same_bytes(tiny: Workflow, tmp_path: Path) -> None:
    workflow = Workflow(tmp_path, TINY_WORLD)
    kill_when(workflow, extracting)
    done = finished_blocks(workflow)
    kill_when(workflow, training_heads)
    assert len(done) >= 6 and done <= finished_blocks(workflow), "no block that was whole is made again"
    workflow.snakemake()
    assert workflow.planned() == {}
    assert digests(workflow) == digests(tiny)
    leftovers = [path for path in (tmp_path / "results").rglob("*") if ".partial-" in path.name]
    assert leftovers == []


def finished_blocks(workflow: Workflow) -> set[tuple[str, int]]:
    """Return the blocks that are there, each with its inode: a job that finds one done only dates it anew."""
    blocks = (workflow.directory / "results").glob("features/*/*/*/*/blocks/*/manifest.json")
    return {(str(path), path.stat().st_ino) for path in blocks}


def test_a_second_snakemake_in_the_same_folder_is_refused_while_the_first_runs(tiny: Workflow, tmp_path: Path) -> None:
    workflow = Workflow(tmp_path, TINY_WORLD)
    backbone = "results/backbones/resnet/manifest.json"
    first = subprocess.Popen(
        workflow.command("--", backbone),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not list(tmp_path.glob(".snakemake/locks/*.output.lock")):
            assert first.poll() is None
            time.sleep(0.02)
        second = workflow.snakemake(backbone, check=False)
        assert second.returncode != 0
        *_, line = (second.stdout + second.stderr).splitlines()
        assert f"another snakemake is at work on these results (process {first.pid} on " in line
    finally:
        assert first.wait() == 0


def test_a_flipped_bit_is_named_and_healed_by_verify(tiny: Workflow) -> None:
    before = digests(tiny)
    blocks = tiny.directory / "results/features/vit/latin/train/train/blocks"
    path = max((p for p in blocks.rglob("*") if p.is_file() and p.name != MANIFEST), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)

    train_again = ("--forcerun", "head", "--", "results/heads/vit/default/seed1/manifest.json")
    failed = tiny.snakemake(*train_again, check=False)
    assert failed.returncode != 0
    lines = (failed.stdout + failed.stderr).splitlines()
    assert any("head: error: " in line and str(path.name) in line and "damaged" in line for line in lines)
    assert not list((tiny.directory / "results/heads/vit").rglob("*.partial-*"))

    verify = [sys.executable, "-m", "pipeline_lib", "verify", "--results", "results"]
    report = subprocess.run(verify, cwd=tiny.directory, capture_output=True, text=True, check=False)
    assert report.returncode == 1
    assert "2 damaged" in report.stdout  # the block, and the record of the view that lists it
    subprocess.run([*verify, "--remove"], cwd=tiny.directory, capture_output=True, check=True)
    tiny.snakemake(*train_again)
    assert digests(tiny) == before
    assert tiny.planned() == {}


HEAD = Path("results/heads/resnet/default/seed1")


def processes(directory: Path, words: bytes) -> list[int]:
    """Return the processes that work in a folder and whose command line holds these words."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == directory and words in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def wait_for(condition: Callable[[], object], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start_training(workflow: Workflow) -> tuple[subprocess.Popen[bytes], int]:
    """Delete a head, start a run that trains it, and return that run and its job's process."""
    shutil.rmtree(workflow.directory / HEAD)
    with open(workflow.directory / "run.log", "w") as log:
        command = workflow.command("--", str(HEAD / MANIFEST))
        run = subprocess.Popen(command, cwd=workflow.directory, stdout=log, stderr=log, start_new_session=True)
    wait_for(lambda: run.poll() is not None or processes(workflow.directory, b"pipeline_lib\0head"))
    (job,) = processes(workflow.directory, b"pipeline_lib\0head")
    return run, job


def test_a_killed_job_is_reported_and_the_same_command_completes(tiny: Workflow, tmp_path: Path) -> None:
    workflow = tiny.copy(tmp_path / "copy")
    run, job = start_training(workflow)
    os.kill(job, signal.SIGKILL)
    assert run.wait() == 1
    said = (workflow.directory / "run.log").read_text()
    assert "Killed" in said and "Error in rule head" in said
    workflow.snakemake(str(HEAD / MANIFEST))
    assert digests(workflow) == digests(tiny)
    assert not list((workflow.directory / "results").rglob("*.partial-*"))


def test_jobs_end_with_their_killed_snakemake_and_the_same_command_completes(tiny: Workflow, tmp_path: Path) -> None:
    """Were they to go on, the same command would write the same files beside them."""
    workflow = tiny.copy(tmp_path / "copy")
    run, _ = start_training(workflow)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    wait_for(lambda: not processes(workflow.directory, b"pipeline_lib"), seconds=20)
    assert not (workflow.directory / HEAD / MANIFEST).exists()
    workflow.snakemake(str(HEAD / MANIFEST))
    assert digests(workflow) == digests(tiny)
    assert not list((workflow.directory / "results").rglob("*.partial-*"))


def test_a_disk_that_fills_up_during_a_run_costs_nothing_once_there_is_space(tiny: Workflow, tmp_path: Path) -> None:
    """The results lie on a real file system of a few pages; each size ends the run at another file."""
    workflow = Workflow(tmp_path, TINY_WORLD)
    script = """
        mkdir -p results; target=results/datasets/greek/manifest.json
        for size in 8k 28k; do
            mount -t tmpfs -o size=$size tmpfs results || exit 77
            "$@" -- $target >>out.log 2>&1 && echo "$size: enough"
            mount -o remount,size=10m results || exit 77
            "$@" -- $target >>again.log 2>&1 || echo "$size: still fails"
            cp $target manifest-$size.json; find results -name "*.partial-*"; umount results
        done"""
    result = in_namespace(script, *workflow.command(), cwd=tmp_path)
    assert result.stdout == "", result.stdout + (tmp_path / "again.log").read_text()[-2000:]
    assert (tmp_path / "out.log").read_text().count("No space left on device") >= 2
    manifests = list(tmp_path.glob("manifest-*.json"))
    assert len(manifests) == 2
    assert {file_digest(path) for path in manifests} == {
        file_digest(tiny.directory / "results/datasets/greek" / MANIFEST)
    }


@pytest.mark.parametrize("stage", ["features", "head"])
def test_a_disk_that_fills_up_while_a_stage_writes_costs_nothing_once_there_is_space(
    tiny: Workflow, tmp_path: Path, stage: str
) -> None:
    """There is space for three quarters. Features in HDF5; the same in Zarr is a test of bad input."""
    results = tiny.directory / "results"
    view = results / "features/resnet/latin/train/train"
    made = next((view / "blocks").iterdir()) if stage == "features" else tiny.directory / HEAD
    content = json.loads((made / MANIFEST).read_text())
    if stage == "features":
        content["spec"]["format"] = "hdf5"
        inputs = [f"--dataset={results}/datasets/latin", f"--backbone={results}/backbones/resnet"]
    else:
        inputs = [f"--features={view}/cache"]
    script = """
        mkdir -p small; mount -t tmpfs -o size=$1 tmpfs small || exit 77
        shift; "$@" 2>full.log && echo "enough"
        find small -name "*.partial-*" -o -name manifest.json
        mount -o remount,size=10m small || exit 77
        "$@" 2>again.log || echo "still fails"
        cp -r small/made made"""
    size = sum(file["bytes"] for file in content["files"].values()) * 3 // 4
    command = [sys.executable, "-m", "pipeline_lib", stage, "--spec", json.dumps(content["spec"]), *inputs]
    result = in_namespace(script, size, *command, "--output", "small/made", cwd=tmp_path)
    assert result.stdout == "", result.stdout + (tmp_path / "again.log").read_text()[-2000:]
    said = (tmp_path / "full.log").read_text()
    (line,) = [line for line in said.splitlines() if "error" in line.lower()]
    assert line.startswith(f"{stage}: error: the disk is full") and "Traceback" not in said
    written = read(tmp_path / "made")
    if stage == "head":
        assert written.content == read(made).content
    else:
        ours, expected = h5py.File(written.directory / "arrays.h5"), zarr.open_group(made / "arrays.zarr", mode="r")
        for name in content["facts"]["arrays"]:
            np.testing.assert_array_equal(ours[name][...], expected[name][...])


def test_a_read_only_results_folder_is_said_before_any_job_and_can_still_be_read(
    tiny: Workflow, tmp_path: Path
) -> None:
    workflow = tiny.copy(tmp_path / "copy")
    shutil.rmtree(workflow.directory / HEAD)
    script = """
        mount --bind -o ro results results || exit 77
        "$@" -- results/heads/vit/default/seed1/manifest.json >nothing.log 2>&1 || echo "nothing to do, but it failed"
        "$@" -- results/heads/resnet/default/seed1/manifest.json"""
    result = in_namespace(script, *workflow.command(), cwd=workflow.directory)
    assert result.returncode == 1
    (line,) = [line for line in (result.stdout + result.stderr).splitlines() if "error:" in line.lower()]
    assert line.startswith("error: results: can't be written (Read-only file system); make it writable")
    assert "Nothing to be done" in (workflow.directory / "nothing.log").read_text()
    assert "Traceback" not in result.stderr
    workflow.snakemake(str(HEAD / MANIFEST))
    assert digests(workflow) == digests(tiny)


DAMAGED = {
    "results/datasets/greek/index.parquet": "dataset",
    "results/features/resnet/greek/test/eval/blocks": "evaluation_features",
    "results/neighbours/resnet/greek/test/neighbours.parquet": "neighbours",
    "results/heads/resnet/default/seed1/head.safetensors": "head",
    "results/evaluation/resnet/heads/default/greek/test/scores.parquet": "evaluate_heads",
}


def test_each_kind_of_damaged_artefact_is_named_and_made_again_with_the_same_bytes(
    tiny: Workflow, tmp_path: Path
) -> None:
    """Cut, flipped, emptied: each file differently; `verify` names them all, and removes them on demand."""
    workflow = tiny.copy(tmp_path / "copy")
    damaged = []
    for number, name in enumerate(DAMAGED):
        path = workflow.directory / name
        if path.is_dir():  # the arrays of a block
            path = max(
                (p for p in path.rglob("*") if p.is_file() and p.name != MANIFEST), key=lambda p: p.stat().st_size
            )
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 16
        path.write_bytes([bytes(data), data[: len(data) // 2], b""][number % 3])
        damaged.append(str(path.relative_to(workflow.directory)))
    verify = [sys.executable, "-m", "pipeline_lib", "verify", "--results", "results"]
    report = subprocess.run([*verify, "--remove"], cwd=workflow.directory, capture_output=True, text=True, check=True)
    for path in damaged:
        assert f"{path}: " in report.stdout
    target = "results/evaluation/resnet/heads/default/greek/test/manifest.json"
    result = workflow.snakemake(target)
    made = re.findall(r"^(?:local)?(?:rule|checkpoint) (\w+):", result.stdout + result.stderr, re.MULTILINE)
    assert set(DAMAGED.values()) <= {"head" if name.startswith("head_") else name for name in made}
    assert digests(workflow) == digests(tiny)


def test_a_worker_process_that_dies_ends_the_job_with_one_line_and_the_next_gives_the_same_bytes(
    tiny: Workflow, tmp_path: Path
) -> None:
    """As when the machine runs out of memory and kills the largest process."""
    block = next((tiny.directory / "results/features/resnet/latin/train/train/blocks").iterdir())
    spec = json.loads((block / MANIFEST).read_text())["spec"]
    inputs = [
        f"--dataset={tiny.directory}/results/datasets/latin",
        f"--backbone={tiny.directory}/results/backbones/resnet",
    ]
    command = [sys.executable, "-m", "pipeline_lib", "features", "--spec", json.dumps(spec), *inputs, "--workers", "1"]
    command += ["--output", str(tmp_path / "view" / block.name)]
    with open(tmp_path / "job.log", "w") as log:
        job = subprocess.Popen(command, cwd=tiny.directory, stdout=log, stderr=log)
        # A worker is a copy of the job; torch starts other programs of its own.
        wait_for(lambda: job.poll() is not None or len(processes(tiny.directory, b"pipeline_lib\0features")) > 1)
        (worker,) = set(processes(tiny.directory, b"pipeline_lib\0features")) - {job.pid}
        os.kill(worker, signal.SIGKILL)
        assert job.wait(timeout=300) == 1
    said = (tmp_path / "job.log").read_text()
    (line,) = [line for line in said.splitlines() if "error:" in line]
    assert "features: error: a process that decodes images died" in line and "features.workers" in line
    assert "Traceback" not in said
    assert not list(tmp_path.glob("view/*"))
    subprocess.run(command, cwd=tiny.directory, capture_output=True, check=True)
    assert read(tmp_path / "view" / block.name).content == read(block).content
