"""Kinds of faults: each function injects one and returns the errors of the jobs that it ran itself."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from pipeline_lib.__main__ import main as pipeline
from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import MANIFEST
from pipeline_lib.core.errors import PipelineError
from tests.faults.world import TRAP, World, error_in, failing, in_a_child, killed

Fault = Callable[[World, random.Random], list[str]]
FAULTS: dict[str, Fault] = {}


def fault(inject: Fault) -> Fault:
    """Register a fault: a function that injects it and returns the errors of jobs that it ran itself."""
    FAULTS[inject.__name__] = inject
    return inject


def _files(world: World, rng: random.Random, folder: Path | None = None) -> Path:
    """Return a file of an artefact to be damaged, not empty: each artefact as likely as any other."""
    folders = [folder] if folder else [world.graph().folder(ref) for ref in world.refs()]
    while True:
        chosen = rng.choice(folders)
        path = chosen / rng.choice([MANIFEST, *artefacts.read(chosen, verify=False).files])
        if path.stat().st_size:
            path = Path(os.path.normpath(path))
            world.affected.add(path)
            return path


def early(rng: random.Random, end: int) -> int:
    """Return a number below an end; small ones are likelier, since short jobs make few calls."""
    return int(end ** rng.random()) - 1


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def _read_by_a_job(world: World, rng: random.Random, damage: Callable[[Path, random.Random], None]) -> list[str]:
    """Damage a file of an artefact, and do a job that reads it."""
    graph = world.graph()
    ref = rng.choice([ref for ref in world.refs() if graph.sources(ref)])
    graph.inputs(ref)
    sources = [source for source in graph.sources(ref) if source.stage != "published"]
    damage(_files(world, rng, graph.folder(rng.choice(sources))), rng)
    return world.job(graph, ref)


@fault
def bit_flipped_in_what_a_job_reads(world: World, rng: random.Random) -> list[str]:
    return _read_by_a_job(world, rng, flip)


@fault
def file_cut_that_a_job_reads(world: World, rng: random.Random) -> list[str]:
    return _read_by_a_job(world, rng, cut)


@fault
def file_gone_that_a_job_reads(world: World, rng: random.Random) -> list[str]:
    return _read_by_a_job(world, rng, lambda path, _: path.unlink())


@fault
def bit_flipped(world: World, rng: random.Random) -> list[str]:
    flip(_files(world, rng), rng)
    return []


@fault
def file_cut(world: World, rng: random.Random) -> list[str]:
    cut(_files(world, rng), rng)
    return []


@fault
def files_gone(world: World, rng: random.Random) -> list[str]:
    for _ in range(rng.randint(1, 5)):
        _files(world, rng).unlink(missing_ok=True)
    return []


@fault
def artefacts_gone(world: World, rng: random.Random) -> list[str]:
    for ref in rng.sample(world.refs(), 3):
        shutil.rmtree(world.graph().folder(ref))
        world.affected.add(world.graph().folder(ref))
    return []


@fault
def stage_gone(world: World, rng: random.Random) -> list[str]:
    folder = rng.choice([path for path in world.results.iterdir() if path.is_dir() and path.name[0] != "."])
    shutil.rmtree(folder)
    world.affected.add(folder)
    return []


@fault
def number_edited(world: World, rng: random.Random) -> list[str]:
    """In a table that people open in a spreadsheet."""
    path = rng.choice([*world.results.glob("*.csv"), *world.results.glob("tables/*")])
    digits = [match.start() for match in re.finditer(r"\d", path.read_text())]
    text = list(path.read_text())
    text[rng.choice(digits)] = rng.choice("0123456789")
    path.write_text("".join(text) + rng.choice(["", "\n"]))
    world.affected.add(path)
    return []


@fault
def artefact_of_another_place(world: World, rng: random.Random) -> list[str]:
    graph, refs = world.graph(), [ref for ref in world.refs() if ref.stage not in ("table", "figure")]
    ref = rng.choice([ref for ref in refs if sum(other.stage == ref.stage for other in refs) > 1])
    other = rng.choice([other for other in refs if other.stage == ref.stage and other != ref])
    shutil.rmtree(graph.folder(ref))
    shutil.copytree(graph.folder(other), graph.folder(ref))
    world.affected.add(graph.folder(ref))
    return []


def _job_with_trap(world: World, rng: random.Random, number: int, writing: bool) -> list[str]:
    graph, ref = world.graph(), rng.choice(world.refs())
    graph.inputs(ref)
    with TRAP.set(world, early(rng, 30), failing(number), writing):
        return world.job(graph, ref)


@fault
def disk_full(world: World, rng: random.Random) -> list[str]:
    return _job_with_trap(world, rng, errno.ENOSPC, writing=True)


@fault
def disk_broken(world: World, rng: random.Random) -> list[str]:
    return _job_with_trap(world, rng, errno.EIO, writing=False)


@fault
def files_of_somebody_else(world: World, rng: random.Random) -> list[str]:
    return _job_with_trap(world, rng, errno.EACCES, writing=False)


@fault
def file_system_read_only(world: World, rng: random.Random) -> list[str]:
    return _job_with_trap(world, rng, errno.EROFS, writing=True)


@fault
def command_fails_anywhere(world: World, rng: random.Random) -> list[str]:
    with TRAP.set(world, early(rng, 600), failing(errno.EIO), writing=False):
        return world.command()


@fault
def job_killed(world: World, rng: random.Random) -> list[str]:
    graph, ref, number = world.graph(), rng.choice(world.refs()), early(rng, 40)
    graph.inputs(ref)

    def work() -> None:
        with TRAP.set(world, number, killed, writing=False):
            world.job(graph, ref)

    in_a_child(work)
    return []


@fault
def edit_of_the_config_then_a_failure(world: World, rng: random.Random) -> list[str]:
    world.change(rng)
    with TRAP.set(world, early(rng, 300), failing(errno.EIO), writing=False):
        return world.command()


@fault
def edit_of_the_config_then_a_kill(world: World, rng: random.Random) -> list[str]:
    world.change(rng)

    def work() -> None:
        with TRAP.set(world, early(rng, 300), killed, writing=False):
            world.command()

    in_a_child(work)
    return []


@fault
def edit_taken_back_after_a_failure(world: World, rng: random.Random) -> list[str]:
    said = edit_of_the_config_then_a_failure(world, rng)
    world.edit = {}
    return said


@fault
def dates_shuffled(world: World, rng: random.Random) -> list[str]:
    for path in world.results.rglob("*"):
        if rng.random() < 0.9:
            os.utime(path, (rng.choice([time.time() * rng.random(), 4e9]),) * 2, follow_symlinks=False)
    return []


@fault
def tree_copied(world: World, rng: random.Random) -> list[str]:
    """Without dates, in any order."""
    copied = world.directory.with_name("copied")
    for path in sorted(world.directory.rglob("*"), key=lambda path: rng.random()):
        target = copied / path.relative_to(world.directory)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    shutil.rmtree(world.directory)
    copied.rename(world.directory)
    return []


@fault
def folder_moved_behind_a_link(world: World, rng: random.Random) -> list[str]:
    folder = rng.choice([path for path in world.results.iterdir() if path.is_dir() and path.name[0] != "."])
    elsewhere = world.directory / "scratch" / folder.name
    elsewhere.parent.mkdir()
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    return artefacts_gone(world, rng)


@fault
def notes_of_runs_gone_or_damaged(world: World, rng: random.Random) -> list[str]:
    """What lies in `.jobs`; a job that is given a damaged description says so."""
    graph, ref = world.graph(), rng.choice(world.refs())
    for found in world.refs():
        graph.inputs(found)
    for path in (world.results / ".jobs").rglob("*.json"):
        if rng.random() < 0.3:
            path.unlink()
            world.affected.add(path)
        elif rng.random() < 0.3:
            cut(path, rng)
            world.affected.add(path)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        failed = pipeline([ref.stage, "--job", str(graph.description_path(ref))])
    return [error_in(said.getvalue())] if failed else []


@fault
def drafts_left(world: World, rng: random.Random) -> list[str]:
    for ref in rng.sample(world.refs(), 5):
        folder = world.graph().folder(ref)
        draft = folder.with_name(f".{folder.name}.partial-{rng.choice(['elsewhere', os.uname().nodename])}-999999999")
        shutil.copytree(folder, draft, dirs_exist_ok=True)
    return artefacts_gone(world, rng)


@fault
def checkpoint_damaged(world: World, rng: random.Random) -> list[str]:
    """It is refused in one line, or answers as before."""
    import torch
    from PIL import Image

    from pipeline_lib.pretrained import load

    folder = rng.choice([path.parent for path in world.results.glob("checkpoints/*/*/config.json")])
    picture = Image.linear_gradient("L").convert("RGB").resize((50, 40))

    def answer() -> list[torch.Tensor]:
        model = load(folder)
        image = model.transform(picture)
        return [image, *model(image[None])]

    expected = answer()
    rng.choice([flip, cut])(_files(world, rng, folder), rng)
    try:
        found = answer()
    except PipelineError as error:
        return [str(error)]
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True)), "other answers"
    return []
