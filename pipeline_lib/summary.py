"""What the jobs of a run took: time, speed and memory by stage, from the benchmark and the log that each job leaves.

A job's benchmark is `<results>/benchmarks/<stage>/....tsv`, as Snakemake writes it; its log has the same path below
`<results>/logs`. Every run ends with this, so it imports the standard library alone.
"""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.core.errors import PipelineError

# A line of progress: "vit on birds, eval: 5,794 of 5,794 images, 312 images/s", or "... images (900 before), ...".
_IMAGES = re.compile(r"(?P<what>.*?)(?P<done>[\d,]+) of [\d,]+ images(?: \((?P<before>[\d,]+) before\))?, ")
_WATT_HOUR = 3600.0
_BLOCK_BYTES = 4096


@dataclass(frozen=True)
class FinishedJob:
    """One job.

    Attributes
    ----------
    name
        The path of its log below `logs`, without the suffix.
    seconds
        Wall time.
    megabytes
        Peak memory; None where the job was too short to measure it.
    images
        How many it worked on in that time, without those that an earlier attempt had done.
    """

    name: str
    seconds: float
    megabytes: float | None
    images: int

    @property
    def stage(self) -> str:
        """The first part of the name, such as `features`."""
        return self.name.split("/")[0]


def finished_jobs(results: Path, since: float = 0.0) -> list[FinishedJob]:
    """Return the jobs of a results folder that ended since a time, by the time of their benchmark.

    Parameters
    ----------
    results
        The results folder.
    since
        Seconds since 1970, as of `time.time()`; 0 = the last run of every job.

    Raises
    ------
    PipelineError
        For a file that is not a benchmark of Snakemake.
    """
    benchmarks = Path(results) / "benchmarks"
    jobs = []
    for path in sorted(benchmarks.rglob("*.tsv")):
        if path.stat().st_mtime >= since:
            name = path.relative_to(benchmarks).with_suffix("").as_posix()
            jobs.append(_job(path, name, Path(results) / "logs" / f"{name}.log"))
    return jobs


def summarise(jobs: Sequence[FinishedJob], wall_seconds: float | None = None, joules: float | None = None) -> str:
    """Return the summary of a run as lines of text.

    Parameters
    ----------
    jobs
        Its jobs.
    wall_seconds
        How long the run took; None = unknown.
    joules
        The energy that the machine used in that time; None = unknown.
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


def failures(logs: Mapping[str, Path]) -> str:
    """Return one line per failed job: its own message, or the last thing that it said, and where its log is.

    Parameters
    ----------
    logs
        The log of each job by what to call it.
    """
    return "".join(f"failed: {name}: {_message(log)} (log: {log})\n" for name, log in logs.items())


def _message(log: Path) -> str:
    try:
        said = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError as error:
        return f"its log can't be read ({error.strerror})"
    if not said and shutil.disk_usage(log.parent).free < _BLOCK_BYTES:
        return "ended without a message, since the disk is full; free some space and run snakemake again"
    if not said:
        return "ended without a message, as when the machine kills it for its memory"
    return next((line for line in reversed(said) if ": error: " in line), said[-1])


def _line(stage: str, jobs: Sequence[FinishedJob]) -> str:
    """Return the line of a stage; its speed is that of the jobs that count images, including their start."""
    counting = [job for job in jobs if job.images]
    seconds = sum(job.seconds for job in counting)
    speed = f"{sum(job.images for job in counting) / seconds:,.0f}" if seconds else ""
    memory = max((job.megabytes for job in jobs if job.megabytes is not None), default=None)
    duration = _duration(sum(job.seconds for job in jobs))
    return f"{stage:<20}{len(jobs):>6}{duration:>14}{speed:>10}{_memory(memory):>13}".rstrip()


def _job(path: Path, name: str, log: Path) -> FinishedJob:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    try:
        # Further rows are of repetitions, of which there are none.
        seconds, memory = float(rows[0]["s"]), rows[0]["max_rss"]
        megabytes = float(memory) if memory not in ("NA", "-", "") else None
    except (IndexError, KeyError, TypeError, ValueError):
        raise PipelineError(f"{path}: not a benchmark of Snakemake (columns s, max_rss); delete it") from None
    return FinishedJob(name, seconds, megabytes, _images(log))


def _images(log: Path) -> int:
    """Return how many images a job worked on: the sum over its progress bars, by the last line of each in its log."""
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
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def _memory(megabytes: float | None) -> str:
    if megabytes is None:
        return ""
    return f"{megabytes:,.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:,.1f} GB"
