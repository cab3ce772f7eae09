"""What of a world is stale: decided by what was made, whatever the workflow engine remembers, forgets or is told.

Each artefact has a derivation: the digest of its stage, the version of the code, its spec, and the derivations of its
inputs. Its manifest records the derivation and, for each input, derivation and content. It is fresh

- if stage, code, spec and, where it is made of the user's files, these are what its manifest says, and
- each input is fresh and has the recorded content (so a change that changed no byte ends there), or is gone and has the
  recorded derivation (so features may be deleted once heads are trained).

If that depends on inputs that are yet to be made, it is pending. The engine compares times of files: for each job there
is a small file that describes it (`stages.described`), older than its outputs if they are fresh and newer if not.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from pipeline_lib.config import kinds
from pipeline_lib.config.config import Config
from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import MANIFEST, Manifest, canonical_json
from pipeline_lib.core.errors import ArtefactError
from pipeline_lib.core.jobs import PARTS, Job, Ref, Refs, Settings, derivation_digest
from pipeline_lib.core.spec import Spec
from pipeline_lib.core.versions import version_of
from pipeline_lib.stages import sources
from pipeline_lib.stages.described import FOLDER, State, description, is_foreign

# What describes a job that needn't run is dated so; outputs from before, as of archives without times, are dated anew.
_LONG_AGO = 1_000_000_000
# An artefact of more, such as a block of Zarr with a file per chunk, is left to its readers, which name what is
# missing: a run with nothing to do would look at every chunk.
_FEW_FILES = 16
# A file that isn't made here: one of the repository's.
PUBLISHED = "published"


@dataclass(frozen=True)
class _Node:
    """A job as the config asks for it: its typed spec, the components of its code, the artefacts that it reads."""

    stage: ModuleType
    spec: Spec
    code: dict[str, str]
    inputs: dict[str, tuple[Ref, ...]]


class Graph:
    """The jobs of a config, each with its state.

    Parameters
    ----------
    config : Config
        What is asked for.
    results : Path
        Folder of the results.
    published : Path
        Folder of the published numbers (`<name>.csv`), which some tables and figures read.
    described : Path, optional
        Folder of the files that describe jobs; jobs find their artefacts from the default alone, which is among these.
    plans : bool
        Whether this process plans the run. One that does a single job of it, on another machine perhaps, leaves what
        describes the job as it was planned, whatever the config says by now, and doesn't look at the user's own files:
        200,000 images take a second or two, over a network far longer.
    """

    def __init__(
        self, config: Config, results: Path, published: Path, described: Path | None = None, plans: bool = True
    ) -> None:
        self.config = config
        self.results = Path(results)
        self.described = described or self.results / FOLDER
        self._published = Path(published)
        self._plans = plans
        self._run = f"{time.time_ns()}-{os.getpid()}"
        self._nodes: dict[Ref, _Node] = {}
        self._derivations: dict[Ref, str] = {}
        self._states: dict[Ref, tuple[State, Manifest | None]] = {}
        self._checked: set[Ref] = set()
        self._unknown_datasets: dict[Path, int | None] = {}
        self._files: dict[Ref, dict[str, list[str]]] = {}
        self._outputs: dict[Ref, tuple[Path, ...]] = {}

    def outputs(self, ref: Ref) -> tuple[Path, ...]:
        """Return the files that say that an artefact is there: its manifest, or the files with a place of their own.

        Those of the artefact's folder that a report shows (`SHOWN`) come after the manifest.
        """
        if ref not in self._outputs:
            self._outputs[ref] = self._outputs_of(self._resolved(ref))
        return self._outputs[ref]

    def _outputs_of(self, ref: Ref) -> tuple[Path, ...]:
        if ref.stage == PUBLISHED:
            return (self._published / f"{dict(ref.wildcards)['name']}.csv",)
        stage = load_stage(ref.stage)
        names = (MANIFEST, *getattr(stage, "SHOWN", ()))
        patterns = getattr(stage, "FILES", None) or [f"{stage.OUTPUT}/{name}" for name in names]
        return tuple(self.results / pattern.format(**dict(ref.wildcards)) for pattern in patterns)

    def inputs(self, ref: Ref) -> dict[str, list[str]]:
        """Return the files that the job of an artefact reads, by name, and under `job` the one that describes it."""
        self._forget_what_datasets_decided()
        ref = self._resolved(ref)
        if ref not in self._files:
            described = self._describe(ref)
            inputs = self._node(ref).inputs
            files = {name: [str(self.outputs(source)[0]) for source in sources] for name, sources in inputs.items()}
            self._files[ref] = {**files, "job": [] if described is None else [str(described)]}
        return {name: list(files) for name, files in self._files[ref].items()}

    def state(self, ref: Ref) -> State:
        """Return whether an artefact is fresh, stale, or pending."""
        return self._known(self._resolved(ref))[0]

    def derivation(self, ref: Ref) -> str:
        """Return the digest of what decides the content of an artefact, by the config and the code as they are."""
        ref = self._resolved(ref)
        if ref not in self._derivations:
            if ref.stage == PUBLISHED:
                self._derivations[ref] = _digest_of(self.outputs(ref)[0])
            else:
                node = self._node(ref)
                inputs = {
                    name: [self.derivation(found) for found in refs]
                    for name, refs in node.inputs.items()
                    if name != PARTS
                }
                self._derivations[ref] = derivation_digest(ref.stage, node.spec.plain(), node.code, inputs)
        return self._derivations[ref]

    def behind(self, refs: Iterable[Ref]) -> list[Ref]:
        """Return artefacts and all that they are made from, inputs first."""
        ordered: dict[Ref, None] = {}

        def add(ref: Ref) -> None:
            if ref.stage != PUBLISHED and ref not in ordered:
                for source in self.sources(ref):
                    add(source)
                ordered[ref] = None

        for ref in refs:
            add(self._resolved(ref))
        return list(ordered)

    def sources(self, ref: Ref) -> list[Ref]:
        """Return what an artefact is made from, as far as it is known: blocks are once their dataset is indexed."""
        self._forget_what_datasets_decided()
        node = self._node(self._resolved(ref))
        return [self._resolved(source) for refs in node.inputs.values() for source in refs]

    def code(self, ref: Ref) -> dict[str, str]:
        """Return the version of each component of the code that makes an artefact."""
        return self._node(self._resolved(ref)).code

    def folder(self, ref: Ref) -> Path:
        """Return the folder of an artefact's manifest."""
        return self.results / _folder_of(self._resolved(ref))

    def job(self, ref: Ref, elsewhere: Path | None = None) -> Job[Spec]:
        """Return the job of an artefact, for a run in this process; it may go elsewhere, its files beside."""
        ref = self._resolved(ref)
        node = self._node(ref)
        inputs = {name: tuple(self._read_at(found) for found in refs) for name, refs in node.inputs.items()}
        files = self.outputs(ref) if hasattr(node.stage, "FILES") else ()
        if elsewhere is not None:
            files = tuple(elsewhere.with_name(f"{elsewhere.name}.files") / file.name for file in files)
        output = elsewhere or self.folder(ref)
        # As a job's own process reads it: with the keys of mappings in order, whatever the order in the config.
        spec = node.stage.Spec.model_validate(json.loads(canonical_json(node.spec.complete())))
        settings = Settings(workers=self.config.features.workers)
        return Job(ref.stage, spec, inputs, output, files, node.code, planned=elsewhere is None, settings=settings)

    def together(self, refs: Iterable[Ref]) -> Iterator[tuple[tuple[Any, ...], list[Ref]]]:
        """Yield artefacts that are not fresh and can be made by one process, at least two, with what they share."""
        groups: dict[tuple[Any, ...], list[Ref]] = {}
        for ref in dict.fromkeys(refs):
            if self.state(ref) != "fresh":
                node = self._node(self._resolved(ref))
                groups.setdefault(node.stage.together(node.spec), []).append(ref)
        yield from ((shared, group) for shared, group in groups.items() if len(group) > 1)

    def samples(self, dataset: str, split: str) -> int | None:
        """Return the number of images in a split; None while the dataset is yet to be indexed, or has no such split."""
        self._forget_what_datasets_decided()
        return self._samples(dataset, split)

    def _samples(self, dataset: str, split: str) -> int | None:
        state, manifest = self._known(Ref.to("dataset", dataset=dataset))
        return manifest.facts["splits"].get(split) if state == "fresh" and manifest is not None else None

    def _resolved(self, ref: Ref) -> Ref:
        if ref.stage == PUBLISHED:
            return ref
        resolve: Callable[..., Ref] | None = getattr(load_stage(ref.stage), "resolve", None)
        return ref if resolve is None else resolve(self.config, **dict(ref.wildcards))

    def _node(self, ref: Ref) -> _Node:
        known = self._nodes.get(ref)
        if known is not None:
            self._check_images(ref, known)
            return known
        stage, wildcards = load_stage(ref.stage), dict(ref.wildcards)
        spec = stage.Spec.of(self.config, **wildcards)
        plugins = stage.plugins(self.config, **wildcards) if hasattr(stage, "plugins") else ()
        code = {component: version_of(component) for component in (f"stages.{ref.stage}", *plugins)}
        refs: Refs = stage.inputs(self.config, **wildcards)
        inputs = {name: _as_tuple(found) for name, found in refs.items() if found is not None}
        complete = True
        if hasattr(stage, "parts"):
            samples = self._samples(wildcards["dataset"], wildcards["split"])
            complete = samples is not None
            if samples is not None:
                inputs[PARTS] = stage.parts(self.config, samples, **wildcards)
        node = _Node(stage, spec, code, inputs)
        if complete:
            self._nodes[ref] = node
        self._check_images(ref, node)
        return node

    def _check_images(self, ref: Ref, node: _Node) -> None:
        """Let a stage refuse a number of images that it can't do with, as soon as that is known."""
        if ref in self._checked or not hasattr(node.stage, "check_images"):
            return
        dataset, split = (getattr(node.spec, name) for name in ("dataset", "split"))
        _, listed = self._known(Ref.to("dataset", dataset=dataset))
        if listed is not None and split in listed.facts["splits"]:
            self._checked.add(ref)
            images, classes = listed.facts["splits"][split], len(listed.facts["classes"])
            node.stage.check_images(self.config, images, classes, **dict(ref.wildcards))

    def _known(self, ref: Ref) -> tuple[State, Manifest | None]:
        """Return the state of an artefact and, if it is fresh, its manifest; set the times of its files to say so."""
        if ref not in self._states:
            self._states[ref] = self._judge(ref)
            self._settle(ref, self._states[ref][0])
        return self._states[ref]

    def _judge(self, ref: Ref) -> tuple[State, Manifest | None]:
        if ref.stage == PUBLISHED:
            return "fresh", None
        node = self._node(ref)
        # Inputs first, whatever the answer: their times are settled before those of what is made from them.
        states = {
            name: [(found, *self._known(self._resolved(found))) for found in refs] for name, refs in node.inputs.items()
        }
        try:
            made = artefacts.read(self.folder(ref), ref.stage, verify=False)
        except ArtefactError:
            made = None
        if (
            made is None
            or made.spec != node.spec.plain()
            or made.code != node.code
            or (len(made.files) <= _FEW_FILES and not artefacts.has_all_files(made))
            or (hasattr(node.stage, "FILES") and not _has_its_bytes(made))
            or not self._has_its_sources(ref, node, made)
        ):
            return self._noted(ref, "stale")
        if hasattr(node.stage, "parts") and PARTS not in node.inputs:
            return self._noted(ref, "pending")
        if {name: len(found) for name, found in states.items() if found} != {
            name: len(found) for name, found in made.inputs.items()
        }:
            return self._noted(ref, "stale")
        verdict: State = "fresh"
        for name, found in states.items():
            for (source, state, manifest), recorded in zip(found, made.inputs[name], strict=True):
                answer = self._compare(source, state, manifest, recorded)
                if answer == "stale":
                    return self._noted(ref, "stale")
                verdict = "pending" if answer == "pending" else verdict
        return (verdict, made) if verdict == "fresh" else self._noted(ref, verdict)

    def _compare(self, source: Ref, state: State, manifest: Manifest | None, recorded: Any) -> State:
        """Return whether an input is the recorded one: fresh, stale, or pending until it is made."""
        source = self._resolved(source)
        path = self.outputs(source)[0]
        if state == "fresh":
            content = _digest_of(path) if manifest is None else manifest.content
            return "fresh" if content == recorded["content"] else "stale"
        if not path.exists() and recorded["derivation"] == self.derivation(source):
            return "fresh"
        return "pending"

    def _noted(self, ref: Ref, state: State) -> tuple[State, None]:
        if ref.stage == "dataset":
            path = self.outputs(ref)[0]
            self._unknown_datasets[path] = _time_of(path)
        return state, None

    def judge_anew(self) -> None:
        """Forget the states of artefacts, since some were made in the meantime."""
        self._states.clear()
        self._files.clear()
        self._unknown_datasets.clear()

    def _forget_what_datasets_decided(self) -> None:
        """Judge anew once a dataset was indexed: the engine builds its graph again when its checkpoint is done."""
        if any(_time_of(path) != before for path, before in self._unknown_datasets.items()):
            self.judge_anew()

    def description_path(self, ref: Ref, below: Path | None = None) -> Path:
        """Return the file that describes the job of an artefact, below the folder of such files or another."""
        return (below or self.described) / f"{_folder_of(self._resolved(ref))}.json"

    def _has_its_sources(self, ref: Ref, node: _Node, made: Manifest) -> bool:
        if not (self._plans and hasattr(node.stage, "sources")):
            return True
        noted = sources.path_beside(self.description_path(ref, self.results / FOLDER))
        return sources.are_unchanged(noted, node.stage.sources(node.spec), (made.directory / MANIFEST).stat().st_mtime)

    def _settle(self, ref: Ref, state: State) -> None:
        """Let the outputs of a fresh artefact be no older than its inputs, and none be from the future.

        A clock that was wrong, or a copy in any order, would have the engine make it again or stop at it.
        """
        if ref.stage == PUBLISHED:
            return
        now = time.time()
        newest = max(self._newest_input(ref), _LONG_AGO + 1) if state == "fresh" else 0.0
        for output in self.outputs(ref):
            made = _seconds(output)
            if made and (made > now or (state == "fresh" and made < newest)):
                with contextlib.suppress(OSError):  # of results that can only be read
                    os.utime(output, (now, now))

    def _newest_input(self, ref: Ref) -> float:
        """Return the time of the newest input, in seconds since 1970; of one that is gone, of its inputs."""
        sources = [self._resolved(source) for refs in self._node(ref).inputs.values() for source in refs]
        times = [(source, _seconds(self.outputs(source)[0])) for source in sources]
        return max((seconds or self._newest_input(source) for source, seconds in times), default=0.0)

    def _describe(self, ref: Ref) -> Path | None:
        """Write the file that describes a job, unless it says the same already; None where nothing can be written."""
        path = self.description_path(ref)
        if not self._plans and path.exists():
            return path
        node, (state, _) = self._node(ref), self._known(ref)
        stage, wildcards = node.stage, dict(ref.wildcards)
        job = {
            "stage": ref.stage,
            "spec": node.spec.complete(),
            "code": node.code,
            "inputs": {name: [self._input_path(found) for found in refs] for name, refs in node.inputs.items()},
            "output": _folder_of(ref),
            "targets": [pattern.format(**wildcards) for pattern in getattr(stage, "FILES", ())],
        }
        # What is gone is made again where it is needed, which the engine finds out by itself.
        replaced = state != "fresh" and any(output.exists() for output in self.outputs(ref))
        text = description(job, state, self._run if replaced else None, is_foreign(path, self.folder(ref)))
        try:
            if not path.exists():  # nobody reads it yet, and half a file would be written anew
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            elif path.read_text(encoding="utf-8") != text:
                with artefacts.writing_file(path, lasting=False) as file:
                    file.write(text)
            if not replaced:
                os.utime(path, (_LONG_AGO, _LONG_AGO))
        except OSError as error:
            # In results that can only be read, one that can't be dated before its outputs would have these made again.
            undated = state == "fresh" and error.errno in (errno.EROFS, errno.EPERM)
            return None if undated or not path.exists() else path
        return path

    def _read_at(self, ref: Ref) -> Path:
        """Return what a job reads of an artefact: its folder; of what isn't made here, its file."""
        return self.outputs(ref)[0] if ref.stage == PUBLISHED else self.folder(ref)

    def _input_path(self, ref: Ref) -> str:
        """Return what a job reads of an artefact, by its path below the results; of the repository, the whole path."""
        ref = self._resolved(ref)
        return str(self.outputs(ref)[0].resolve()) if ref.stage == PUBLISHED else _folder_of(ref)


def components() -> list[str]:
    """Return all components of the code: the stages, whatever is found by name, and what trains backbones alone."""
    folder = Path(__file__).parent
    stages = [path.stem for path in folder.glob("*.py") if "\nINPUTS" in path.read_text(encoding="utf-8")]
    found = [f"{family}.{name}" for family in get_args(kinds.Family) for name in kinds.kinds(family)]
    return sorted([*(f"stages.{name}" for name in stages), *found, load_stage("backbone").TRAINER])


@functools.cache
def load_stage(stage: str) -> ModuleType:
    """Import the module of a stage."""
    return importlib.import_module(f"pipeline_lib.stages.{stage}")


def _folder_of(ref: Ref) -> str:
    """Return the folder of an artefact's manifest, below the results."""
    return str(load_stage(ref.stage).OUTPUT).format(**dict(ref.wildcards))


def _has_its_bytes(made: Manifest) -> bool:
    """Return whether the files of an artefact are as they were written: people open those with a place of their own."""
    return all(_digest_of(path) == file["xxh3_128"] for path, file in made.paths.items())


def _as_tuple(refs: Ref | Sequence[Ref]) -> tuple[Ref, ...]:
    return (refs,) if isinstance(refs, Ref) else tuple(refs)


def _seconds(path: Path) -> float:
    """Return when a file was written, in seconds since 1970, at least a millisecond; 0 where there is none."""
    try:
        return max(path.stat().st_mtime, 1e-3)
    except OSError:
        return 0.0


def _time_of(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _digest_of(path: Path) -> str:
    """Return the checksum of a file, or "" where there is none."""
    time_of = _time_of(path)
    return "" if time_of is None else _digest_at(path, time_of)


@functools.cache
def _digest_at(path: Path, modified: int) -> str:
    return artefacts.file_digest(path)
