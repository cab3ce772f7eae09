"""What a run did: jobs, time, speed and memory by stage, from the benchmark and the log that each job leaves.

A job's benchmark is `<results>/benchmarks/<stage>/....tsv`, as Snakemake writes it; its log has the same path below
`<results>/logs`. Standard library alone: this is made at the end of every run.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.core.errors import PipelineError

# A line of progress: "vit on birds, eval: 5,794 of 5,794 images, 312 images/s", or "... images (900 before), ...".
_IMAGES = re.compile(r"(?P<what>.*?)(?P<done>[\d,]+) of [\d,]+ images(?: \((?P<before>[\d,]+) before\))?, ")
_WATT_HOUR = 3600.0


@dataclass(frozen=True)
class Job:
    """One job: its name (the path of its log), wall seconds, peak memory in MB (None: too short to tell), images.

    Images are those of these seconds: all that were worked on, without those that an attempt before had done.
    """

    name: str
    seconds: float
    megabytes: float | None
    images: int

    @property
    def stage(self) -> str:
        """The first part of the name, such as `features`."""
        return self.name.split("/")[0]


def finished_jobs(results: Path, since: float = 0.0) -> list[Job]:
    """Return the jobs that ended since then, by the time of their benchmark.

    results: the results folder. since: seconds since 1970, as `time.time()`; 0 = every job's last run.
    Raises `PipelineError` naming a benchmark that is not one.
    """
    benchmarks = Path(results) / "benchmarks"
    jobs = []
    for path in sorted(benchmarks.rglob("*.tsv")):
        if path.stat().st_mtime >= since:
            name = path.relative_to(benchmarks).with_suffix("").as_posix()
            jobs.append(_job(path, name, Path(results) / "logs" / f"{name}.log"))
    return jobs


def summarise(jobs: Sequence[Job], wall_seconds: float | None = None, joules: float | None = None) -> str:
    """Return a run's summary as lines of text.

    wall_seconds: how long the run took (None: not known). joules: the machine's energy in that time (None: not known).
    """
    plural = "" if len(jobs) == 1 else "s"
    first = f"{len(jobs)} job{plural}, {_duration(sum(job.seconds for job in jobs))} of work"
    lines = [first if wall_seconds is None else f"{first} in {_duration(wall_seconds)}"]
    lines.append(f"{'stage':<20}{'jobs':>6}{'time':>14}{'images/s':>10}{'peak memory':>13}")
    for stage in dict.fromkeys(job.stage for job in jobs):
        lines.append(_line(stage, [job for job in jobs if job.stage == stage]))
    measured = [job for job in jobs if job.megabytes is not None]
    if measured:
        largest = max(measured, key=lambda job: job.megabytes or 0.0)
        lines.append(f"peak memory: {_memory(largest.megabytes)}, {largest.name}")
    if joules is not None:
        lines.append(f"energy: {joules / _WATT_HOUR:,.1f} Wh (this machine, all its processes)")
    return "\n".join(lines) + "\n"


def _line(stage: str, jobs: Sequence[Job]) -> str:
    """Return a stage's line; images per second of the jobs that count images, their start included."""
    counting = [job for job in jobs if job.images]
    seconds = sum(job.seconds for job in counting)
    speed = f"{sum(job.images for job in counting) / seconds:,.0f}" if seconds else ""
    memory = max((job.megabytes for job in jobs if job.megabytes is not None), default=None)
    duration = _duration(sum(job.seconds for job in jobs))
    return f"{stage:<20}{len(jobs):>6}{duration:>14}{speed:>10}{_memory(memory):>13}".rstrip()


def _job(path: Path, name: str, log: Path) -> Job:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    try:
        # Several lines are repetitions; Snakemake repeats nothing here.
        seconds, memory = float(rows[0]["s"]), rows[0]["max_rss"]
        megabytes = float(memory) if memory not in ("NA", "-", "") else None
    except (IndexError, KeyError, TypeError, ValueError):
        raise PipelineError(f"{path}: not a benchmark of Snakemake (columns s, max_rss); delete it") from None
    return Job(name, seconds, megabytes, _images(log))


def _images(log: Path) -> int:
    """Return how many images a job did by its log: the sum over all that it did, by the last line of each."""
    done = {}
    try:
        with open(log, encoding="utf-8", errors="replace") as lines:
            for found in filter(None, map(_IMAGES.match, lines)):
                done[found["what"]] = _count(found["done"]) - _count(found["before"] or "0")
    except OSError:
        return 0
    return sum(done.values())


def _count(digits: str) -> int:
    return int(digits.replace(",", ""))


def _duration(seconds: float) -> str:
    """Return a duration as a person would say it: 4.2 s, 3 min 12 s, 5 h 02 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def _memory(megabytes: float | None) -> str:
    if megabytes is None:
        return ""
    return f"{megabytes:,.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:,.1f} GB"
