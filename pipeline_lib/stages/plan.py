"""Say what a config will take before anything runs: jobs, images, bytes of cache; with --seconds 2, hours too.

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
from pipeline_lib.stages.graph import Graph, load_stage
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
        "--seconds", type=float, default=0.0, help="how long to measure each backbone; 0 = no hours (default: 0)"
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
    """Return the artefacts that each process of a first run makes, stage by stage in the order of the data.

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
    graph = Graph(config, Path(config.results_dir), Path("workflow/published"))
    steps: dict[Ref, int] = {}  # from the user's files to an artefact, and to the last one of a stage
    last: dict[str, int] = {}
    for ref in graph.behind(targets(config)):
        steps[ref] = 1 + max((steps.get(source, 0) for source in graph.sources(ref)), default=0)
        last[ref.stage] = max(steps[ref], last.get(ref.stage, 0))
    backbones = ["", *config.backbones, *config.benchmark_backbones]
    return sorted(
        (ref for ref in steps if ref.stage != "features"),
        key=lambda ref: (last[ref.stage], ref.stage, backbones.index(dict(ref.wildcards).get("backbone", ""))),
    )


def _split_and_size(text: str) -> tuple[tuple[str, str], int]:
    name, _, number = text.partition("=")
    dataset, _, split = name.partition("/")
    if not (dataset and split and number.isdecimal() and int(number)):
        raise PipelineError(f"--images {text}: expected NAME/SPLIT=N, such as birds/test=5000")
    return (dataset, split), int(number)
