"""Kill the run, damage its files: the same command again completes, and nothing in the result tells of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline_lib.artefacts import MANIFEST, file_digest
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
        deadline = time.monotonic() + 300
        while not condition(workflow.directory / "results"):
            assert process.poll() is None, (workflow.directory / "killed.log").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def extracting(results: Path) -> bool:
    """Some blocks are done, and a job is busy with another."""
    done = list(results.glob("features/*/*/*/*/blocks/*/manifest.json"))
    return len(done) >= 4 and b"pipeline_lib\0features" in running_commands(results)


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
    lost = done - finished_blocks(workflow)
    assert len(lost) <= 2 < len(done), "only the two jobs in flight, which Snakemake had not seen end, are done again"
    workflow.snakemake()
    assert workflow.planned() == {}
    assert digests(workflow) == digests(tiny)
    leftovers = [path for path in (tmp_path / "results").rglob("*") if ".partial-" in path.name]
    assert leftovers == []


def finished_blocks(workflow: Workflow) -> set[tuple[str, int]]:
    """Return the blocks that are there, each with the time at which it was written."""
    blocks = (workflow.directory / "results").glob("features/*/*/*/*/blocks/*/manifest.json")
    return {(str(path), path.stat().st_mtime_ns) for path in blocks}


def test_a_second_snakemake_in_the_same_folder_is_refused_while_the_first_runs(tiny: Workflow, tmp_path: Path) -> None:
    workflow = Workflow(tmp_path, TINY_WORLD)
    backbone = "results/backbones/resnet/manifest.json"
    first = subprocess.Popen(
        workflow.command(backbone),
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
        (line,) = [line for line in (second.stdout + second.stderr).splitlines() if line.strip()]
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
    assert "2 damaged" in report.stdout  # the block, and the record of the view that answers for it
    subprocess.run([*verify, "--remove"], cwd=tiny.directory, capture_output=True, check=True)
    tiny.snakemake(*train_again)
    assert digests(tiny) == before
    assert tiny.planned() == {}
