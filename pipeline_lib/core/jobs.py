"""Jobs: what a stage is asked to do, and how it knows that this was done before.

A stage is a module of `pipeline_lib.stages` that defines

- `INPUTS`, the artefacts that it reads, by name;
- `OUTPUT`, the folder of its artefact below the results, with the job's wildcards in braces;
- `Spec`, with a class method `of(config, **wildcards)`;
- `inputs(config, **wildcards)`, which says which artefacts those are: a `Ref`, several, or None for each name;
- `run(job)`, which writes the artefact with `with job.writing() as draft:`;

and, where it needs them,

- `run_together(jobs)` and `together(spec)`: one process does several jobs of the same key;
- `plugins(spec)`, the modules that are chosen by name and whose code the job also runs;
- `sources(spec)`, the user's own files and folders whose change makes the artefact stale;
- `SETTINGS`, the names of the fields of `Settings` that its command takes.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import Draft, Manifest, canonical_json
from pipeline_lib.core.errors import ArtefactError
from pipeline_lib.core.spec import Spec

SpecT = TypeVar("SpecT", bound=Spec)


@dataclass(frozen=True)
class Input:
    """One of the artefacts that a stage reads: its name, and what it is in a few words for `--help`."""

    name: str
    help: str
    required: bool = True
    many: bool = False


@dataclass(frozen=True)
class Ref:
    """An artefact by the stage that makes it and the wildcards of its folder."""

    stage: str
    wildcards: tuple[tuple[str, str], ...]

    @classmethod
    def to(cls, stage: str, **wildcards: object) -> Ref:
        """Return a reference, such as `Ref.to("head", backbone="vit", variant="default", seed=1)`."""
        return cls(stage, tuple(sorted((name, str(value)) for name, value in wildcards.items())))


@dataclass(frozen=True)
class Parts:
    """Pieces of which an artefact consists: how it is cut into them is no part of its derivation."""

    refs: tuple[Ref, ...]


Refs = Mapping[str, "Ref | Sequence[Ref] | Parts | None"]


@dataclass(frozen=True)
class Settings:
    """What changes how a job is done and never its result."""

    workers: int = 0
    scheduler: str | None = None
    processes: int | None = None
    curves: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job(Generic[SpecT]):
    """One piece of work of a stage.

    inputs: the folders of the artefacts to read, by the names of the stage's `INPUTS`.
    output: the folder of the artefact to write.
    code: the version of each component of the code that makes it (see `core.versions`).
    """

    stage: str
    spec: SpecT
    inputs: Mapping[str, tuple[Path, ...]]
    output: Path
    code: Mapping[str, str] = field(default_factory=dict)
    settings: Settings = Settings()

    def input(self, name: str) -> Path:
        """Return the folder of the one artefact of this name; raises `ArtefactError` when there is none."""
        found = self.optional_input(name)
        if found is None:
            raise ArtefactError(f"{self.stage}: needs an artefact for '{name}', but got none; give --{name} PATH")
        return found

    def optional_input(self, name: str) -> Path | None:
        """Return the folder of the artefact of this name, or None."""
        paths = self.inputs.get(name, ())
        return paths[0] if paths else None

    def all_inputs(self, name: str) -> tuple[Path, ...]:
        """Return the folders of the artefacts of this name."""
        return tuple(self.inputs.get(name, ()))

    @contextlib.contextmanager
    def writing(self) -> Iterator[Draft]:
        """Write the artefact: yields a `Draft`, and publishes it when the block ends without error."""
        made_from = {name: tuple(_input_record(path) for path in paths) for name, paths in self.inputs.items() if paths}
        derivation = derivation_digest(
            self.stage,
            self.spec.plain(),
            self.code,
            {name: [record["derivation"] for record in records] for name, records in made_from.items()},
        )
        with artefacts.writing(
            self.output, self.stage, self.spec.plain(), made_from, code=self.code, derivation=derivation
        ) as draft:
            yield draft


def derivation_digest(
    stage: str, spec: Mapping[str, Any], code: Mapping[str, str], inputs: Mapping[str, Sequence[str]]
) -> str:
    """Return the digest of what decides the content of an artefact.

    stage, spec: what is done. code: the version of each component of the code. inputs: the derivations of the
    artefacts that are read, by name.
    """
    content = {"stage": stage, "spec": spec, "code": dict(code), "inputs": {k: list(v) for k, v in inputs.items()}}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()[:32]


def _input_record(path: Path) -> dict[str, str]:
    if path.is_file():  # metrics.csv has no manifest: what it holds decides
        return dict.fromkeys(("derivation", "content"), artefacts.file_digest(path))
    manifest: Manifest = artefacts.read(path, verify=False)
    return {"derivation": manifest.derivation, "content": manifest.content}
