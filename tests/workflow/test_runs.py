"""One run at a time, on file systems with locks and without; what only looks at a run changes nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.config.load import parse_config
from pipeline_lib.core.artefacts import file_digest
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Ref
from pipeline_lib.core.ownership import RUN_LOCK
from pipeline_lib.stages.graph import Graph
from tests.workflow.conftest import ROOT, TINY_WORLD, Workflow
from tests.workflow.test_reruns import edited

sys.path.insert(0, str(ROOT / "workflow/rules"))
import runs


def left_by_a_killed_run(directory: Path) -> Path:
    lock = directory / ".snakemake/locks/0.output.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text("results/metrics.csv\n")
    return lock


@pytest.mark.parametrize("refusal", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_stops_no_run_and_leaves_the_engine_its_own_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = left_by_a_killed_run(tmp_path)
    runs.begin_run(tmp_path, tmp_path / "results", dry_run=False)
    assert lock.exists() and not runs.is_held(tmp_path / "results")


def test_a_killed_run_leaves_nothing_that_stops_the_next(tmp_path: Path) -> None:
    lock = left_by_a_killed_run(tmp_path)
    runs.begin_run(tmp_path, tmp_path / "results", dry_run=False)
    assert not lock.exists() and runs.is_held(tmp_path / "results")


def test_locks_of_another_user_that_can_not_be_opened_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, opened = left_by_a_killed_run(tmp_path), os.open

    def refuse(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if Path(path).name == "running.lock":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return opened(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PipelineError, match=r"running\.lock: can't be opened \(Permission denied\), .*chmod"):
        runs.begin_run(tmp_path, tmp_path / "results", dry_run=False)
    assert lock.exists()


def test_a_full_disk_is_said_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        path.touch()  # which still works
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    runs.check_writable(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(PipelineError, match=r"can't be written \(No space left on device\); .* free some space"):
        runs.check_writable(tmp_path)
    assert not any(tmp_path.iterdir())


def test_finished_results_that_can_only_be_read_stay_finished(tiny: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a copy dated the files that describe its jobs anew."""
    config = parse_config({**TINY_WORLD, "results_dir": str(tiny.directory / "results")})
    graph = Graph(config, tiny.directory / "results", ROOT / "workflow/published")
    head = Ref.to("head", backbone="vit", variant="default", seed=1)
    assert len(graph.inputs(head)["job"]) == 1

    def refuse(path: Path, times: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    monkeypatch.setattr(os, "utime", refuse)
    assert graph.inputs(head)["job"] == []


def described(world: Workflow) -> dict[Path, tuple[int, str]]:
    return {
        path: (path.stat().st_mtime_ns, file_digest(path))
        for path in (world.directory / "results/.jobs").rglob("*")
        if path.is_file()
    }


def test_while_a_run_is_on_others_may_look_and_change_nothing(tiny: Workflow, tmp_path: Path) -> None:
    world = tiny.copy(tmp_path / "copy")
    world.planned()
    left, before = left_by_a_killed_run(world.directory), described(world)
    assert before
    with open(world.directory / "results" / RUN_LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "results/metrics.csv" in world.snakemake("--summary").stdout
        assert world.snakemake("-n", "--config", "seeds=[1,2]").returncode == 0
        refused = world.snakemake("--delete-all-output", check=False)
        assert refused.returncode != 0 and "another snakemake is at work" in refused.stderr
        listed = world.snakemake("--list-rules").stdout.split()
    assert {"datasets", "features", "heads", "tables", "plots", "checkpoints"} <= set(listed)
    assert described(world) == before
    world.snakemake("--list-rules")
    assert left.parent.exists()


def test_all_that_a_config_asks_for_is_deleted_whole(tiny: Workflow, tmp_path: Path) -> None:
    world = tiny.copy(tmp_path / "copy")
    mine = world.directory / "results/heads/vit/notes.txt"
    mine.write_text("mine")
    world.snakemake("--delete-all-output")
    beside = {"logs", "benchmarks", ".jobs"}
    left = [path for path in (world.directory / "results").rglob("*") if path.is_file() and not beside & {*path.parts}]
    assert {path.name for path in left} <= {"notes.txt", RUN_LOCK}
    assert mine.exists()


def test_a_part_of_the_whole_is_a_target(tiny: Workflow, tmp_path: Path) -> None:
    world = Workflow(tmp_path, edited("training.learning_rate", 0.002))
    (tmp_path / "results").symlink_to(tiny.directory / "results")
    said = world.snakemake("-n", "--", "features")
    assert "Nothing to be done" in said.stdout + said.stderr
    assert "Migrating" not in said.stdout + said.stderr  # as where `.snakemake` holds half of what Snakemake expects
    assert world.planned("heads") == {"head": 2, "heads": 2}  # a rule for those of one cache, and the target


def test_a_target_that_is_read_as_a_config_file_is_named(tiny: Workflow) -> None:
    target = "results/datasets/greek/manifest.json"
    refused = tiny.snakemake("-n", "--configfile", "config.yaml", target, check=False)
    (line,) = [line for line in refused.stderr.splitlines() if line.strip()]
    assert refused.returncode != 0 and f"{target}: a target, read as a further config file" in line
