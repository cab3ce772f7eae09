"""Run one job of a stage in this process, as `python -m pipeline_lib <stage>` would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline_lib.core.jobs import Ref, Settings
from pipeline_lib.stages import command
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
    """Make artefacts and all that they are made from, as far as they aren't fresh, one after the other in this process.

    As Snakemake would, but without starting a process for each: only what a run itself does needs Snakemake.
    """
    datasets = [ref for ref in graph.behind(refs) if ref.stage == "dataset"]
    for wanted in (datasets, refs):  # of how many blocks features are made is known once datasets are indexed
        graph.judge_anew()
        for ref in graph.behind(wanted):
            state = graph.state(ref)
            if state != "fresh":
                job = graph.job(ref)
                if state == "stale" or not job.is_done():
                    load_stage(job.stage).run(job)
    graph.judge_anew()
