"""A world that is damaged, in which the same command is given again, and a trap for calls to the file system."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline_lib.__main__ import main as pipeline
from pipeline_lib.config.load import parse_config
from pipeline_lib.core.artefacts import file_digest
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Ref
from pipeline_lib.stages.graph import Graph
from pipeline_lib.stages.targets import targets

ROOT = Path(__file__).parents[2]
# Not results, but what a run says and notes beside them.
_BESIDE = ("logs", "benchmarks")

# Each makes a few jobs stale.
EDITS: list[dict[str, Any]] = [
    {"figures": {"densities": {"width": 5.0}}},
    {"export": {"backbone": False}},
    {"evaluation": {"card_images": 5}},
    {"ablations": {"variants": {"leeway": {"training": {"leeway": 0.2}}}}},
]


class World:
    """A copy of a finished world that is damaged and repaired."""

    def __init__(self, pristine: Path, config: Mapping[str, Any], directory: Path) -> None:
        self.pristine, self.config, self.directory = pristine, dict(config), directory
        self.edit: dict[str, Any] = {}
        # What a fault touched: a refusal names one of these.
        self.affected: set[Path] = set()
        self._undisturbed: dict[str, dict[str, str]] = {}
        self.restore()

    def restore(self) -> None:
        """Copy the finished world anew."""
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.copytree(self.pristine, self.directory, symlinks=True)
        self.edit, self.affected = {}, set()

    @property
    def results(self) -> Path:
        return self.directory / "results"

    def graph(self) -> Graph:
        config = {**self.config, **self.edit, "results_dir": str(self.results)}
        return Graph(parse_config(config), self.results, ROOT / "workflow/published")

    def refs(self) -> list[Ref]:
        graph = self.graph()
        return graph.behind(targets(graph.config))

    def describe(self) -> None:
        """Describe each job, as a dry run does."""
        graph = self.graph()
        for ref in graph.behind(targets(graph.config)):
            graph.inputs(ref)

    def change(self, rng: random.Random) -> None:
        """Ask for something else from now on."""
        edit = rng.choice(EDITS)
        merged = _merged(self.config, edit)
        self.edit = {key: merged[key] for key in edit}

    def files(self) -> dict[str, str]:
        """Return the checksum of each file of the results."""
        found = {}
        for folder, subfolders, names in os.walk(self.results, followlinks=True):
            subfolders[:] = [name for name in subfolders if name[0] != "." and name not in _BESIDE]
            for name in names:
                path = Path(folder, name)
                if name[0] != "." and not name.endswith(".live.jsonl"):
                    found[path.relative_to(self.results).as_posix()] = file_digest(path) if path.stat().st_size else ""
        return found

    def undisturbed(self) -> dict[str, str]:
        """Return the files of a run of this config in which nothing went wrong."""
        key = repr(self.edit)
        if key not in self._undisturbed:
            with tempfile.TemporaryDirectory() as folder:
                calm = World(self.pristine, self.config, Path(folder, "world"))
                calm.edit = self.edit
                assert calm.command() == [], "an undisturbed run refuses"
                self._undisturbed[key] = calm.files()
        return self._undisturbed[key]

    def command(self) -> list[str]:
        """Do what is not fresh, inputs first, up to the first job that fails; return what it said."""
        try:
            graph = self.graph()
            refs = targets(graph.config)
            for wanted in ([ref for ref in graph.behind(refs) if ref.stage == "dataset"], refs):
                graph.judge_anew()
                for ref in graph.behind(wanted):
                    if graph.state(ref) != "fresh" and (said := self.job(graph, ref)):
                        return said
        except PipelineError as error:
            return [str(error)]
        except OSError as error:
            return [f"{error.filename}: {error.strerror}"]
        return []

    def job(self, graph: Graph, ref: Ref) -> list[str]:
        """Do one job as its process would; return the lines that it said of an error."""
        (described,) = graph.inputs(ref)["job"]
        said = io.StringIO()
        with (
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.chdir(self.directory),
        ):
            code = pipeline([ref.stage, "--job", described])
        return [error_in(said.getvalue())] if code else []

    def verify(self, *more: str) -> str:
        """Return what `verify` says."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            pipeline(["verify", "--results", str(self.results), *more])
        return said.getvalue()


def error_in(said: str) -> str:
    """Return the error among what a job said, to the end: whatever follows it belongs to it."""
    lines = said.rstrip().splitlines()
    start = next((number for number, line in enumerate(lines) if ": error: " in line), len(lines))
    return "\n".join(lines[start:]) or "failed without a word"


def _merged(config: Mapping[str, Any], edit: Mapping[str, Any]) -> dict[str, Any]:
    changed = {
        key: _merged(config.get(key, {}), value) if isinstance(value, dict) else value for key, value in edit.items()
    }
    return {**config, **changed}


class Trap:
    """Fails a call to the file system: the n-th that touches files of a world, from then on or once."""

    def __init__(self) -> None:
        self.armed: tuple[World, Callable[[str], None], bool] | None = None
        self.left = 0
        sys.addaudithook(self._watch)

    @contextlib.contextmanager
    def set(self, world: World, number: int, spring: Callable[[str], None], writing: bool) -> Iterator[None]:
        self.left, self.armed = number, (world, spring, writing)
        try:
            yield
        finally:
            self.armed = None

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.armed is None or event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"):
            return
        world, spring, writing = self.armed
        path, reads = str(arguments[0]), event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not path.startswith(str(world.directory)) or (writing and reads):
            return
        self.left -= 1
        if self.left < 0:
            world.affected.add(Path(path))
            spring(path)


TRAP = Trap()


def failing(number: int) -> Callable[[str], None]:
    def spring(path: str) -> None:
        raise OSError(number, os.strerror(number), path)

    return spring


def killed(path: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_child(action: Callable[[], object]) -> None:
    """Do something in a copy of this process, which may be killed."""
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            action()
        os._exit(0)
    os.waitpid(child, 0)
