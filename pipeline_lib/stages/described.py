"""Jobs as a run describes them: a small file each, which is an input of the job and the argument of its command.

The file lies in `<results>/.jobs` and says which stage, spec, code and inputs, by paths below the results, and how much
was known when the run was planned:

- `fresh`: the artefact is what the job would make; if it runs all the same and alone, somebody forces it;
- `stale`: it is not;
- `pending`: that depends on inputs which are yet to be made; the job decides, and ends at once if it finds them equal.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pipeline_lib.core import ownership
from pipeline_lib.core.errors import ArtefactError, PipelineError
from pipeline_lib.core.jobs import Job, Settings
from pipeline_lib.core.spec import Spec
from pipeline_lib.stages import sources
from pipeline_lib.stages.command import validated

FOLDER = ownership.JOBS
State = Literal["fresh", "stale", "pending"]


def do_described(name: str, stage: ModuleType, files: Sequence[Path], settings: Settings) -> None:
    """Do the jobs that files describe; those that turn out to be done already are left as they are."""
    described = [(file, *read_description(name, stage, file)) for file in files]
    forced = all(state == "fresh" for _, _, state in described)
    waiting, files = [], []
    for file, job, state in described:
        if not forced and state != "stale" and job.is_done():
            print(f"{job.output}: what it is made from has not changed, so it stays as it is")
            _touch(job)
            continue
        waiting.append(replace(job, settings=settings))
        files.append(file)
    with sources.noted(stage, zip(files, waiting, strict=True)):
        if len(waiting) > 1 and hasattr(stage, "run_together"):
            stage.run_together(waiting)
        else:
            for job in waiting:
                stage.run(job)


def read_description(name: str, stage: ModuleType, file: Path) -> tuple[Job[Spec], State]:
    """Return the job that a file describes, and its state when the run was planned."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        job, state = content["job"], content["state"]
        results = file.parents[file.parts[::-1].index(FOLDER)]
    except OSError as error:
        raise PipelineError(f"{file}: can't be read ({error.strerror}); run snakemake again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{file}: does not describe a job ({error}); run snakemake again") from None
    if job["stage"] != name:
        raise ArtefactError(f"{file}: describes a job of stage '{job['stage']}', not of '{name}'")
    described = Job(
        stage=name,
        spec=validated(name, stage, job["spec"]),
        inputs={key: tuple(results / path for path in paths) for key, paths in job["inputs"].items()},
        output=results / job["output"],
        targets=tuple(results / path for path in job["targets"]),
        code=job["code"],
        planned=not content.get("foreign"),
    )
    return described, state


def planned_folders(results: Path) -> dict[Path, list[Path]]:
    """Return the folders of artefacts that a run planned, which are its own, each with the files that lie elsewhere."""
    found = {}
    for file in (results / FOLDER).rglob("*.json"):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if not content.get("foreign"):
                found[results / content["job"]["output"]] = [results / path for path in content["job"]["targets"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # what else lies there
    return found


def is_foreign(file: Path, folder: Path) -> bool:
    """Return whether a folder holds what no run made; file: describes its job, where one was planned before."""
    if not folder.is_dir() or ownership.is_artefact(folder) or not any(folder.iterdir()):
        return False
    try:
        return bool(json.loads(file.read_text(encoding="utf-8")).get("foreign"))
    except (OSError, ValueError, AttributeError):
        return True


def description(job: Mapping[str, Any], state: State, run: str | None, foreign: bool = False) -> str:
    """Return the text of the file that describes a job.

    run: of a job whose output is there and not fresh, the run that plans it: Snakemake compares small inputs by content
    where it remembers them, and a job that failed has not been done. foreign: what lies at its output is not ours.
    """
    content: dict[str, Any] = {"job": job, "state": state} | ({} if run is None else {"run": run})
    content |= {"foreign": True} if foreign else {}
    return json.dumps(content, sort_keys=True) + "\n"  # without indent, which Python's JSON writes ten times as slowly


def _touch(job: Job[Spec]) -> None:
    for path in (job.output / "manifest.json", *job.targets):
        os.utime(path)
