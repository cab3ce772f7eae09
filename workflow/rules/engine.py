"""What this workflow needs of Snakemake beyond its documented interface; tests/workflow/test_engine.py tests each."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import snakemake.common
import snakemake.jobs
import snakemake.rules
from snakemake.settings.enums import RerunTrigger


def let_times_decide(workflow: Any) -> None:
    """Run what the times of files ask for, as with --rerun-triggers mtime --rerun-incomplete.

    The graph sets these times by what was made (pipeline_lib/stages/graph.py). Records of parameters, code and inputs
    would make jobs run again after a move, a release, or when they were made together with others; and an output that
    is there is whole, so what a killed run left is either right or stale. To be called by input functions: the settings
    are not there yet when the Snakefile is read.
    """
    workflow.dag_settings.rerun_triggers = frozenset({RerunTrigger.MTIME})
    workflow.dag_settings.force_incomplete = True
    # That records are missing, as of every copy, is no news where nothing is decided by them.
    workflow.log_missing_metadata_info = workflow.log_outdated_metadata_info = lambda: None


def collect_garbage_rarely() -> None:
    """Look for garbage a hundred times as rarely as Python does by itself.

    What is imported and the graph of jobs stay until the end; to look through them again and again takes an eighth of
    the time of planning. Memory is the same to 1 %.
    """
    gc.freeze()
    gc.set_threshold(70_000, 20, 20)


def remember_parameters() -> None:
    """Ask for the parameters of each input function and resource once, where Snakemake asks ten times for each job.

    The asking took a twelfth of the time of planning.
    """
    ask = snakemake.common.get_function_params
    known: dict[tuple[Any, bool], Mapping[str, Any]] = {}

    def parameters(function: Any) -> Mapping[str, Any]:
        key = getattr(function, "__func__", function), hasattr(function, "__self__")
        if key not in known:
            known[key] = ask(function)
        return known[key]

    snakemake.common.get_function_params = snakemake.rules.get_function_params = parameters


def remember_commands() -> None:
    """Put the command of a job together once, where Snakemake does it three times to announce the job.

    Each time takes a copy of all that the Snakefile has defined: a tenth of the time of planning.
    """
    put_together = snakemake.jobs.Job.shellcmd.fget
    last: tuple[Any, int, str | None] = (None, 0, None)

    def command(job: Any) -> str | None:
        nonlocal last
        if last[0] is not job or last[1] != job.attempt:
            last = job, job.attempt, put_together(job)
        return last[2]

    snakemake.jobs.Job.shellcmd = property(command)


def leave_benchmarks_out() -> None:
    """Compare inputs with outputs alone: Snakemake counts the benchmark of a job among its outputs.

    The graph dates outputs by what was made; a benchmark that was copied or touched would make its job run again.
    """

    async def oldest(job: Any) -> float | None:
        times = [(await file.mtime()).local_or_storage() for file in job.output if await file.exists()]
        return min(times, default=None)

    snakemake.jobs.Job.output_mintime = property(oldest)


def before_running(workflow: Any, begin: Callable[[], None]) -> None:
    """Call a function before jobs are run, also on trial (`-n`); not before what only looks, such as --summary."""
    execute = workflow.execute

    def begin_and_execute(*arguments: Any, **options: Any) -> Any:
        begin()
        return execute(*arguments, **options)

    workflow.execute = begin_and_execute


def remove_locks(directory: Path) -> None:
    """Remove the locks of a run that was killed in a working directory; as --unlock, which ends without running."""
    for path in (directory / ".snakemake" / "locks").glob("*.lock"):
        path.unlink(missing_ok=True)


def plans(workflow: Any) -> bool:
    """Return whether this process plans the run; others do single jobs, on other machines perhaps."""
    return workflow.is_main_process


def around_deleting(workflow: Any, context: Callable[[], AbstractContextManager[None]]) -> None:
    """Let --delete-all-output, which knows only the files that rules name, run in a context."""
    delete = workflow.delete_output

    def delete_in_context(only_temp: bool = False, dryrun: bool = False) -> None:
        with contextlib.nullcontext() if only_temp or dryrun else context():
            delete(only_temp=only_temp, dryrun=dryrun)

    workflow.delete_output = delete_in_context


def failed_jobs(workflow: Any) -> dict[str, Path]:
    """Return the log of each job that failed for good, by its rule and its first output."""
    jobs = [single for job in workflow.scheduler.failed for single in getattr(job, "jobs", [job])]
    return {f"{job.rule.name} ({next(iter(job.output), '')})": Path(next(iter(job.log), "")) for job in jobs}


def is_module(workflow: Any) -> bool:
    """Return whether another workflow uses the one that is being read."""
    return not workflow.modifier.is_main_snakefile()


def is_prefixed(workflow: Any, path: str) -> bool:
    """Return whether `prefix` or `replace_prefix` of a module changes a path."""
    return str(workflow.modifier.path_modifier.replace_prefix(path)) != path


def is_dry_run(workflow: Any) -> bool:
    """Return whether nothing will be run."""
    return workflow.output_settings.dryrun


def is_touching(workflow: Any) -> bool:
    """Return whether --touch only gives outputs the time of now."""
    return workflow.touch
