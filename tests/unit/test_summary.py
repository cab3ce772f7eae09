"""The summary of a run counts what its jobs took, no other run's, and tells energy only where the machine does."""

from __future__ import annotations

import io
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline_lib.__main__ import main
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.progress import Progress
from pipeline_lib.energy import EnergyMeter
from pipeline_lib.summary import failures, finished_jobs, summarise

COLUMNS = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"


def leave(results: Path, name: str, seconds: float, memory: str, images: int = 0) -> Path:
    """Leave what a job leaves: a benchmark as Snakemake writes it, and a log."""
    benchmark, log = results / "benchmarks" / f"{name}.tsv", results / "logs" / f"{name}.log"
    for path in (benchmark, log):
        path.parent.mkdir(parents=True, exist_ok=True)
    benchmark.write_text(f"{COLUMNS}\n{seconds}\t0:00:00\t{memory}\tNA\tNA\tNA\tNA\tNA\tNA\tNA\n")
    text = io.StringIO()
    if images:
        with Progress(images, "images", "vit on birds, eval", stream=text) as progress:
            progress.advance(images)
    log.write_text(f"before\n{text.getvalue()}")
    return benchmark


def test_jobs_time_speed_and_memory_are_summed_by_stage(tmp_path: Path) -> None:
    leave(tmp_path, "features/vit/birds/test/eval/samples-0-5000", 20, "900.5", images=5000)
    leave(tmp_path, "features/vit/birds/test/eval/samples-5000-7000", 5, "800", images=2000)
    leave(tmp_path, "features/vit/birds/test/eval/cache", 175, "1500.25")
    leave(tmp_path, "metrics", 1.25, "NA")
    jobs = finished_jobs(tmp_path)
    lines = summarise(jobs, wall_seconds=3725, joules=7200).splitlines()
    assert lines[0] == "4 jobs, 3 min 21 s of work in 1 h 02 min"
    rows = {line.split()[0]: line.split(maxsplit=1)[1].split() for line in lines[2:4]}
    # 7,000 images in 25 s; the cache counts none.
    assert rows["features"] == ["3", "3", "min", "20", "s", "280", "1.5", "GB"]
    assert rows["metrics"] == ["1", "1.2", "s"]
    assert lines[4] == "peak memory: 1.5 GB, features/vit/birds/test/eval/cache"
    assert lines[5] == "energy: 2.0 Wh (this machine, all its processes)"


def test_images_of_an_attempt_before_are_not_counted_again(tmp_path: Path) -> None:
    """A training that went on with 900 of 1,000 images did 100 in its 10 seconds, not 1,000."""
    leave(tmp_path, "backbones/mine", 10, "100")
    with (
        open(tmp_path / "logs/backbones/mine.log", "w") as log,
        Progress(1000, "images", "training mine", 900, log) as progress,
    ):
        progress.advance(100)
    assert [job.images for job in finished_jobs(tmp_path)] == [100]


def test_all_that_a_job_counts_is_summed_however_long_its_log_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when neighbours are found within a set, and then in a mixture."""
    leave(tmp_path, "neighbours/vit/birds/test", 10, "100")
    monkeypatch.setattr("pipeline_lib.core.progress._LOG_INTERVAL_SECONDS", 0)  # a line for each piece of work
    with open(tmp_path / "logs/neighbours/vit/birds/test.log", "w") as log:
        for total, what in ((3000, "neighbours of vit"), (500, "neighbours of vit mixed with upstream")):
            with Progress(total, "images", what, stream=log) as progress:
                for _ in range(100):
                    progress.advance(total // 100)
    assert [job.images for job in finished_jobs(tmp_path)] == [3500]


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    leave(tmp_path, "plots/zero_shot", 0.2, "NA")
    lines = summarise(finished_jobs(tmp_path)).splitlines()
    assert lines[0] == "1 job, 0.2 s of work"
    assert lines[2].split() == ["plots", "1", "0.2", "s"]
    assert len(lines) == 3


def test_jobs_of_earlier_runs_are_not_counted(tmp_path: Path) -> None:
    begun = time.time()
    os.utime(leave(tmp_path, "heads/vit/default/seed1", 9, "100"), (begun - 60, begun - 60))
    leave(tmp_path, "heads/vit/default/seed2", 7, "100")
    assert [job.seconds for job in finished_jobs(tmp_path, since=begun - 1)] == [7]
    assert [job.seconds for job in finished_jobs(tmp_path)] == [9, 7]


def test_a_file_that_is_no_benchmark_is_named(tmp_path: Path) -> None:
    path = leave(tmp_path, "metrics", 1, "1")
    path.write_text("")
    with pytest.raises(PipelineError, match=r"metrics\.tsv: not a benchmark"):
        finished_jobs(tmp_path)


def test_a_thousand_jobs_are_summed_in_less_than_a_third_of_a_second(tmp_path: Path) -> None:
    for number in range(1000):
        leave(tmp_path, f"features/vit/birds/test/train/samples-{number}", 1, "100", images=10)
    start = time.process_time()
    summarise(finished_jobs(tmp_path))
    assert time.process_time() - start < 0.3


@pytest.mark.parametrize(("free", "why"), [(0, "since the disk is full"), (1 << 30, "as when the machine kills it")])
def test_a_job_that_left_an_empty_log_had_no_memory_or_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, why: str
) -> None:
    (tmp_path / "head.log").touch()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert f"failed: head (x): ended without a message, {why}" in failures({"head (x)": tmp_path / "head.log"})


def test_the_command_prints_the_summary_or_says_that_nothing_ran(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["summary", "--results", str(tmp_path)]
    assert main(command) == 1
    assert capsys.readouterr().err.startswith(f"summary: error: {tmp_path}: no job has ended here")
    leave(tmp_path, "metrics", 1, "1")
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("1 job, 1.0 s of work\n")


# Zones as Linux names them on servers and laptops.
ZONES = {
    "intel-rapl:0": "package-0",
    "intel-rapl:0:0": "core",
    "intel-rapl:0:1": "uncore",
    "intel-rapl:0:2": "dram",
    "intel-rapl:1": "package-1",
    "intel-rapl:2": "psys",
    "intel-rapl-mmio:0": "package-0",
}


def rapl(folder: Path, name: str, microjoules: int, end: int = 10_000_000) -> Path:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "name").write_text(f"{ZONES[name]}\n")
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{end}\n")
    return folder


def test_energy_is_that_of_processors_and_memory_each_once_also_when_a_counter_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cores and graphics are part of their package, psys has all of it, and mmio is another way to the same."""
    monkeypatch.setattr("pipeline_lib.energy._gpu_joules", lambda: None)
    for zone in ZONES:
        rapl(tmp_path, zone, 0)
    rapl(tmp_path, "intel-rapl:0", 9_000_000)
    meter = EnergyMeter(tmp_path)
    for zone in ZONES:
        rapl(tmp_path, zone, 600_000)
    rapl(tmp_path, "intel-rapl:0", 2_000_000)  # 1 J up to its end, then 2 J
    rapl(tmp_path, "intel-rapl:0:2", 250_000)
    assert meter.joules() == pytest.approx(3 + 0.25 + 0.6)
    assert meter.joules() == pytest.approx(3.85)


def test_gpus_are_counted_too_and_a_machine_that_tells_nothing_gives_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter([100.0, 130.0])
    monkeypatch.setattr("pipeline_lib.energy._gpu_joules", lambda: next(readings))
    assert EnergyMeter(tmp_path).joules() == pytest.approx(30.0)
    monkeypatch.setattr("pipeline_lib.energy._gpu_joules", lambda: None)
    assert EnergyMeter(tmp_path).joules() is None
