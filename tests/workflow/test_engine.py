"""What this workflow takes for granted of Snakemake, on a workflow of one rule: run these first on a new version."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

RULES = Path(__file__).parents[2] / "workflow/rules"
SNAKEFILE = f"""
import contextlib, sys
sys.path.insert(0, {str(RULES)!r})
import engine

@contextlib.contextmanager
def deleting():
    yield
    print("deleted", file=sys.stderr)

engine.before_running(workflow, lambda: print("begun", file=sys.stderr))
engine.around_deleting(workflow, deleting)
engine.remember_parameters()
engine.remember_commands()
engine.leave_benchmarks_out()
assert not engine.is_module(workflow) and not engine.is_prefixed(workflow, "made")
engine.remove_locks(__import__("pathlib").Path.cwd())
said = ["plans" if engine.plans(workflow) else "single", "dry" if engine.is_dry_run(workflow) else "real"]
print(*said, file=sys.stderr)

onsuccess:
    print("touched" if engine.is_touching(workflow) else "ran", file=sys.stderr)

onerror:
    print(engine.failed_jobs(workflow), file=sys.stderr)

def inputs(wildcards):
    engine.let_times_decide(workflow)
    return {{"job": "described", "source": "source"}}

rule make:
    input:
        unpack(inputs),
    output:
        update("made"),
    log:
        "made.log",
    benchmark:
        "made.tsv"
    params:
        value=config.get("value", 0),
    resources:
        trial=lambda wildcards, attempt: attempt,
    shell:
        ": trial {{resources.trial}}; cat made 2>/dev/null || true; test ! -e fail && cat {{input.source}} > made"
"""


class Small:
    """A folder with a workflow of one rule."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "Snakefile").write_text(SNAKEFILE)
        (directory / "source").write_text("first")
        (directory / "described").write_text("a job")
        self.long_ago("described", "source")

    def long_ago(self, *names: str) -> None:
        for name in names:
            os.utime(self.directory / name, (1e9, 1e9))

    def run(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "made", *arguments]
        result = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, check=False)
        return result.stdout + result.stderr

    def read(self) -> str:
        return (self.directory / "made").read_text()


@pytest.fixture
def small(tmp_path: Path) -> Small:
    workflow = Small(tmp_path)
    said = workflow.run()
    assert "plans real" in said and "\nbegun\n" in said and "\nran\n" in said and workflow.read() == "first", said
    return workflow


def test_what_only_looks_begins_no_run_and_what_deletes_is_told(small: Small) -> None:
    assert "begun" not in small.run("--summary") and "begun" in small.run("-n")
    subprocess.run(["rm", "-r", ".snakemake"], cwd=small.directory, check=True)
    assert "missing provenance" not in small.run("-n")
    assert "deleted" not in small.run("--delete-all-output", "-n") and (small.directory / "made").exists()
    assert "deleted" in small.run("--delete-all-output") and not (small.directory / "made").exists()


def test_times_alone_decide_what_runs(small: Small) -> None:
    assert "Nothing to be done" in small.run("--config", "value=1")  # another parameter
    text = (small.directory / "Snakefile").read_text()
    (small.directory / "Snakefile").write_text(text.replace("cat {input.source}", "cat < {input.source}"))
    assert "Nothing to be done" in small.run()  # another command
    (small.directory / "described").write_text("another job")
    assert "plans dry" in small.run("-n")
    assert "Updated input files: described" in small.run("-n")
    # Times, also where `.snakemake` is gone.
    subprocess.run(["rm", "-r", ".snakemake"], cwd=small.directory, check=True)
    assert "Updated input files: described" in small.run("-n")
    small.long_ago("described")
    assert "Nothing to be done" in small.run()
    os.utime(small.directory / "made.tsv", (5e8, 5e8))  # older than the inputs, as after a copy
    assert "Nothing to be done" in small.run()


def test_an_output_that_is_updated_is_there_when_its_job_starts_and_a_failed_job_is_not_forgotten(small: Small) -> None:
    (small.directory / "described").write_text("another job")
    (small.directory / "fail").touch()
    said = small.run()
    assert "first" in said and "Error in rule make" in said
    assert "{'make (made)': PosixPath('made.log')}" in said
    # Newer versions bring the output back; older ones leave it deleted.
    assert not (small.directory / "made").exists() or small.read() == "first"
    # A small input is also compared by what it was when the job failed: only another text runs the job again.
    (small.directory / "described").write_text("another job, of another run")
    assert re.search("Updated input files: described|Missing output files: made", small.run("-n"))


def test_each_try_of_a_job_is_announced_with_its_own_command(small: Small) -> None:
    (small.directory / "described").write_text("another job")
    (small.directory / "fail").touch()
    commands = re.findall(r"^ *: trial (\d); cat made.*cat source > made$", small.run("-p", "--retries", "1"), re.M)
    assert commands[0] == "1" and "2" in commands and sorted(commands) == commands


def test_what_a_killed_run_left_stops_nothing(small: Small) -> None:
    time.sleep(0.01)
    (small.directory / "described").write_text("another job")
    slow = SNAKEFILE.replace("cat made 2>/dev/null || true;", "touch started; sleep 60;")
    (small.directory / "Snakefile").write_text(slow)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "made"]
    process = subprocess.Popen(
        command, cwd=small.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not (small.directory / "started").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, 9)
    process.wait()
    (small.directory / "Snakefile").write_text(SNAKEFILE)
    (small.directory / "source").write_text("second")
    said = small.run()
    assert "1 of 1 steps (100%) done" in said and small.read() == "second", said
    assert "\ntouched\n" in small.run("--touch", "--forceall")
