"""Inject faults, give the same command again, and judge what came of it."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline_lib.stages.targets import targets
from tests.faults.kinds import FAULTS, Fault
from tests.faults.world import World


@dataclass
class Outcome:
    """What came of the faults of one kind."""

    number: int = 0
    refused: int = 0
    verified: int = 0
    bad: list[str] = field(default_factory=list)


def suffer(world: World, inject: Fault, rng: random.Random, outcome: Outcome) -> None:
    """Inject a fault, give the same command until it has nothing to do, and judge what came of it."""
    outcome.number += 1
    said = inject(world, rng)
    for _ in range(5):
        refusal = world.command()
        said += refusal
        if not refusal:
            break
        advice = re.search(r"delete (\S+) and run snakemake again", refusal[-1])
        if advice:
            shutil.rmtree(world.directory / advice[1])
        else:
            world.verify("--remove")
    else:
        outcome.bad.append(f"still refuses: {refusal[-1]}")
    outcome.refused += bool(said)
    outcome.bad += [f"not one line: {line!r}" for line in said if "\n" in line or "Traceback" in line]
    outcome.bad += [f"names none of what is wrong: {line!r}" for line in said if not _names(line, world)]
    wrong = differing(world)
    if wrong:
        report = world.verify("--remove")
        outcome.verified += 1
        outcome.bad += [f"wrong in silence: {name}" for name in wrong if _folder_of(name) not in report]
        world.command()
        outcome.bad += [f"stays wrong: {name}" for name in differing(world)]
    outcome.bad += [f"lost: {name}" for name in lost(world)]


def _names(refusal: str, world: World) -> bool:
    """Return whether a refusal names a file or folder that the fault touched, by its path."""
    paths = [os.path.relpath(path, world.directory) for path in world.affected]
    return any(re.search(rf"(?<![^\s/'(]){re.escape(path)}(?![\w-])", refusal) for path in paths)


def _folder_of(name: str) -> str:
    """Return what a report names at least: the folder of the damaged file."""
    return str(Path(name).parent) if "/" in name else name


def differing(world: World) -> list[str]:
    """Return the files that are there and are not what an undisturbed run writes."""
    expected = world.undisturbed()
    return [name for name, digest in world.files().items() if expected.get(name) != digest]


def lost(world: World) -> list[str]:
    """Return the files that were asked for and aren't there; what they were made from need not be."""
    graph = world.graph()
    asked = [path.relative_to(world.results) for ref in targets(graph.config) for path in graph.outputs(ref)]
    return [str(path) for path in asked if not (world.results / path).exists()]


def run(
    pristine: Path, config: Mapping[str, Any], numbers: Sequence[int], seed: int, directory: Path
) -> dict[str, Outcome]:
    """Inject the faults of these numbers, each kind in turn, and return what came of them."""
    planned = World(pristine, config, directory)
    planned.describe()  # as any run does; what lies where a run planned an artefact is known to be ours
    shutil.copytree(planned.results / ".jobs", pristine / "results/.jobs", dirs_exist_ok=True)
    world, outcomes = World(pristine, config, directory), {name: Outcome() for name in FAULTS}
    for number in numbers:
        name = list(FAULTS)[number % len(FAULTS)]
        outcome, rng = outcomes[name], random.Random(f"{seed} {number}")
        before = len(outcome.bad)
        try:
            suffer(world, FAULTS[name], rng, outcome)
        except Exception as error:
            outcome.bad.append(f"traceback: {type(error).__name__}: {error}")
        outcome.bad[before:] = [f"{line} (--number {number})" for line in outcome.bad[before:]]
        world.restore()
    return outcomes


def table(outcomes: Mapping[str, Outcome]) -> str:
    """Return a line per kind of fault, and what went wrong."""
    lines = [f"{'fault':<40}{'number':>8}{'refused':>9}{'verified':>10}{'bad':>5}"]
    for name, outcome in outcomes.items():
        counts = f"{outcome.number:>8}{outcome.refused:>9}{outcome.verified:>10}{len(outcome.bad):>5}"
        lines.append(f"{name.replace('_', ' '):<40}{counts}")
        lines += [f"    {line}" for line in outcome.bad]
    return "\n".join(lines)
