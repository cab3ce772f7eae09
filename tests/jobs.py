"""Run one job of a stage in this process, as `python -m pipeline_lib <stage>` would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline_lib.core.jobs import Ref, Settings
from pipeline_lib.stages import command, in_process
from pipeline_lib.stages.graph import Graph, load_stage


def run(
    stage: str,
    spec: Mapping[str, Any],
    output: Path,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    **inputs: Path | Sequence[Path] | None,
) -> Path:
    """Make an artefact from a spec of plain values and the folders of its inputs; returns `output`."""
    module = load_stage(stage)
    module.run(command.by_hand(stage, module, spec, output, inputs, settings))
    return output


def make(graph: Graph, *refs: Ref) -> None:
    """Make artefacts and all that they are made from, as far as they aren't fresh, in this process."""
    in_process.make(graph, refs)
