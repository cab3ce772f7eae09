"""The command line of the stages that the workflow runs: one way to say which job, the same for all.

The workflow names files that describe jobs (--job); by hand, --spec, the artefacts to read and --output say the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from pipeline_lib.config.faults import describe
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Input, Job, Settings
from pipeline_lib.core.ownership import require_replaceable
from pipeline_lib.core.spec import Spec
from pipeline_lib.stages import sources
from pipeline_lib.stages.arguments import read_spec

_SETTINGS: dict[str, dict[str, Any]] = {
    "workers": {"type": int, "default": 0, "help": "processes that decode and augment (default: none)"},
    "processes": {
        "type": int,
        "metavar": "N",
        "help": "processes that train together, each on a GPU of its own where the device is one (default: as many as "
        "there are GPUs; 0 and 1: one)",
    },
    "curves": {
        "nargs": "*",
        "choices": ("tensorboard", "wandb"),
        "default": (),
        "help": "where the curve goes while training runs, below <output>.curves; the artefact holds it anyway",
    },
    "scheduler": {
        "metavar": "NAME|ADDRESS",
        "help": "threads, processes, or the address of a dask.distributed scheduler such as tcp://host:8786 "
        "(default: $DASK_SCHEDULER_ADDRESS, or threads)",
    },
}


def add_arguments(parser: argparse.ArgumentParser, stage: ModuleType) -> None:
    """Add the options of a stage."""
    parser.add_argument("--job", type=Path, nargs="+", metavar="PATH", help="files that describe jobs, from a run")
    parser.add_argument(
        "--spec",
        type=read_spec,
        metavar="JSON|FILE",
        help="what to make, as JSON or as a file with JSON (a manifest.json will do): "
        + ", ".join(stage.Spec.model_fields),
    )
    for entry in stage.INPUTS:
        more: dict[str, Any] = {"nargs": "+"} if entry.many else {}
        parser.add_argument(_option(entry), dest=entry.name, type=Path, metavar="PATH", help=entry.help, **more)
    parser.add_argument("--output", type=Path, metavar="PATH", help="folder of the artefact to write")
    for name in getattr(stage, "SETTINGS", ()):
        add_setting(parser, name)


def add_setting(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the option of a field of `Settings`."""
    parser.add_argument(f"--{name}", **_SETTINGS[name])


def run(name: str, stage: ModuleType, arguments: argparse.Namespace) -> None:
    """Do the jobs that the arguments name."""
    settings = Settings(**{key: _plain(getattr(arguments, key)) for key in getattr(stage, "SETTINGS", ())})
    if arguments.job:
        from pipeline_lib.stages.described import do_described

        do_described(name, stage, arguments.job, settings)
        return
    if arguments.spec is None or arguments.output is None:
        raise PipelineError("give --spec and --output, or --job")
    missing = [entry for entry in stage.INPUTS if entry.required and getattr(arguments, entry.name) is None]
    if missing:
        raise PipelineError(f"needs {', '.join(map(_option, missing))} (see --help)")
    require_replaceable(arguments.output, name)
    given = {entry.name: getattr(arguments, entry.name) for entry in stage.INPUTS}
    job = by_hand(name, stage, arguments.spec, arguments.output, given, settings)
    if hasattr(stage, "sources"):
        sources.require_files(stage.sources(job.spec))
    stage.run(job)


def by_hand(
    name: str,
    stage: ModuleType,
    spec: Mapping[str, Any],
    output: Path,
    inputs: Mapping[str, Path | Sequence[Path] | None],
    settings: Settings = Settings(),  # noqa: B008 (frozen)
) -> Job[Spec]:
    """Return a job from a spec of plain values; raises `PipelineError` of one line for one that is not valid."""
    tuples = {entry: _as_tuple(paths) for entry, paths in inputs.items()}
    return Job(name, validated(name, stage, spec), tuples, Path(output), settings=settings)


def validated(name: str, stage: ModuleType, spec: Mapping[str, Any]) -> Spec:
    """Return the typed spec of a stage; raises `PipelineError` of one line for one that is not valid."""
    try:
        return stage.Spec.model_validate(dict(spec))
    except ValidationError as error:
        raise PipelineError(f"spec of {name}: {describe(error, stage.Spec)}") from None


def _as_tuple(paths: Path | Sequence[Path] | None) -> tuple[Path, ...]:
    if paths is None:
        return ()
    return (Path(paths),) if isinstance(paths, (str, Path)) else tuple(map(Path, paths))


def _option(entry: Input) -> str:
    return f"--{entry.name.replace('_', '-')}"


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
