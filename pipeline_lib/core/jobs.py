"""Jobs: what a stage is asked to do, and how it knows that this was done before.

A stage is a module of `pipeline_lib.stages` that defines

- `INPUTS`, the artefacts that it reads, by name;
- `OUTPUT`, the folder of its artefact below the results, with the job's wildcards in braces;
- `Spec`, with a class method `of(config, **wildcards)`;
- `inputs(config, **wildcards)`, which says which artefacts those are: a `Ref`, several, or None for each name;
- `run(job)`, which writes the artefact with `with job.writing() as draft:`;

and, where it needs them,

- `run_together(jobs)` and `together(spec)`: one process does several jobs of the same key;
- `FILES`, the paths below the results of files that have a place of their own; `OUTPUT` then holds the manifest alone;
- `SHOWN`, the names of files in the artefact's folder that the workflow's report shows;
- `plugins(config, **wildcards)`, the components that are chosen by name and whose code the job also runs, such as
  `datasets.folder`;
- `resolve(config, **wildcards)`, the `Ref` of the stage that makes the artefact, where another one may;
- `parts(config, samples, **wildcards)`, the blocks that its artefact consists of, once the set is indexed that its
  wildcards name; how it is cut into them is no part of its derivation;
- `check_images(config, images, classes, **wildcards)`, which raises `PipelineError` where these are too few: as soon as
  the set is indexed that its spec names (`dataset`, `split`), before anything is extracted;
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
from pipeline_lib.core.software import software_behind
from pipeline_lib.core.spec import Spec

SpecT = TypeVar("SpecT", bound=Spec, covariant=True)
InputRecords = dict[str, list[dict[str, str]]]
# The input of a stage with `parts`: the pieces of which its artefact consists.
PARTS = "blocks"


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


Refs = Mapping[str, Ref | Sequence[Ref] | None]


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
    targets: where its files go that have a place of their own (`FILES`).
    code: the version of each component of the code that makes it (see `core.versions`).
    planned: whether a run chose the output, so that whatever an earlier job left there is ours.
    """

    stage: str
    spec: SpecT
    inputs: Mapping[str, tuple[Path, ...]]
    output: Path
    targets: tuple[Path, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)
    settings: Settings = Settings()
    planned: bool = False

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
        inputs = self._inputs_now()
        with artefacts.writing(
            self.output,
            self.stage,
            self.spec.plain(),
            inputs,
            code=self.code,
            derivation=self._derivation(inputs),
            software=software_behind(self.code or (f"stages.{self.stage}",)),
            targets=self.targets,
            replace=self.planned,
        ) as draft:
            yield draft

    def is_done(self) -> bool:
        """Return whether the artefact is there and whole, and what this job would make of the inputs as they are now.

        Its manifest then names these inputs, though it may have been made from others of the same content.
        """
        try:
            made = artefacts.read(self.output, self.stage, verify=False)
        except ArtefactError:
            return False
        inputs = self._inputs_now()
        if (
            made.spec != self.spec.plain()
            or made.code != self.code
            or contents(made.inputs) != contents(inputs)
            or not artefacts.has_all_files(made)
        ):
            return False
        if made.inputs != inputs:
            artefacts.rewrite(made, inputs, self._derivation(inputs))
        return True

    def _inputs_now(self) -> InputRecords:
        return {name: [_input_record(path) for path in paths] for name, paths in self.inputs.items() if paths}

    def _derivation(self, inputs: InputRecords) -> str:
        derivations = {
            name: [record["derivation"] for record in records] for name, records in inputs.items() if name != PARTS
        }
        return derivation_digest(self.stage, self.spec.plain(), self.code, derivations)


def contents(inputs: Mapping[str, Sequence[Mapping[str, str]]]) -> dict[str, list[str]]:
    """Return the content of each artefact that was read, by name."""
    return {name: [record["content"] for record in records] for name, records in inputs.items()}


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
    """Return what a manifest says of an artefact that was read; of a file, its checksum says both."""
    if path.is_file():
        digest = artefacts.file_digest(path)
        return {"derivation": digest, "content": digest}
    manifest: Manifest = artefacts.read(path, verify=False)
    return {"derivation": manifest.derivation, "content": manifest.content}
