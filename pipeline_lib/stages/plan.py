"""Say what a config will take before anything runs: jobs, images, bytes of cache, and hours by a short measurement.

Hours are those of extraction, measured here and now: each backbone's architecture with random weights at its image
size, and decoding and augmentation on one core. Everything else is counted as jobs but not in hours.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.core.jobs import Ref
from pipeline_lib.stages import evaluate_heads, head
from pipeline_lib.stages.graph import PUBLISHED, load_stage
from pipeline_lib.stages.targets import targets

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this stage."""
    parser.add_argument("--config", type=Path, default=Path("config.yaml"), metavar="PATH", help="default: config.yaml")
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="NAME/SPLIT=N",
        help="the number of images in a split that is not here",
    )
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="how long to measure each backbone; 0 = no hours (default: 2)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace) -> None:
    """Plan and print."""
    if not 0 <= arguments.seconds <= 3600:
        raise PipelineError(f"--seconds {arguments.seconds}: must lie between 0 and 3600")

    from pipeline_lib.config.load import load_config
    from pipeline_lib.planning.plan import make_plan
    from pipeline_lib.planning.table import plan_text

    given = dict(map(_split_and_size, arguments.images))
    config = load_config(arguments.config)
    plan = make_plan(config, processes(config), given, arguments.seconds)
    print(json.dumps(plan.as_json(), indent=1) if arguments.json else plan_text(plan))


def processes(config: Config) -> list[tuple[Ref, ...]]:
    """Return the artefacts that each process of a first run makes, in the order of the data.

    Blocks of features are left out: how many there are depends on the number of images.
    """
    bundled = {*head.wanted(config), *evaluate_heads.wanted_ablations(config)}
    found: dict[object, list[Ref]] = {}
    for ref in _needed(config):
        stage = load_stage(ref.stage)
        key = (ref.stage, stage.together(stage.Spec.of(config, **dict(ref.wildcards)))) if ref in bundled else ref
        found.setdefault(key, []).append(ref)
    return list(map(tuple, found.values()))


def _needed(config: Config) -> list[Ref]:
    """Return what a config's targets are and are made from, stage by stage, backbones in the order of the config."""
    steps: dict[Ref, int] = {}

    def steps_to(ref: Ref) -> int:
        """Return how many artefacts lie, one made from the other, between the user's files and this one."""
        if ref.stage == PUBLISHED:
            return 0
        stage, wildcards = load_stage(ref.stage), dict(ref.wildcards)
        ref = stage.resolve(config, **wildcards) if hasattr(stage, "resolve") else ref
        if ref not in steps:
            inputs = load_stage(ref.stage).inputs(config, **wildcards).values()
            sources = [source for refs in inputs for source in ((refs,) if isinstance(refs, Ref) else refs or ())]
            steps[ref] = 1 + max(map(steps_to, sources), default=0)
        return steps[ref]

    for ref in targets(config):
        steps_to(ref)
    last: dict[str, int] = {}
    for ref, count in steps.items():
        last[ref.stage] = max(count, last.get(ref.stage, 0))
    backbones = ["", *config.backbones, *config.benchmark_backbones]
    return sorted(
        steps,
        key=lambda ref: (last[ref.stage], ref.stage, backbones.index(dict(ref.wildcards).get("backbone", ""))),
    )


def _split_and_size(text: str) -> tuple[tuple[str, str], int]:
    name, _, number = text.partition("=")
    dataset, _, split = name.partition("/")
    if not (dataset and split and number.isdecimal() and int(number)):
        raise PipelineError(f"--images {text}: expected NAME/SPLIT=N, such as birds/test=5000")
    return (dataset, split), int(number)
