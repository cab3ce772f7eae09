"""Make artefacts of a graph in this process, one after the other: what a workflow engine does, without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline_lib.core.jobs import Ref
from pipeline_lib.stages import sources
from pipeline_lib.stages.graph import Graph, load_stage


def make(graph: Graph, refs: Sequence[Ref], on_job: Callable[[Ref, int], None] = lambda ref, left: None) -> None:
    """Make artefacts and all that they are made from, as far as they aren't fresh.

    Parameters
    ----------
    graph : Graph
        The jobs.
    refs : sequence of Ref
        What is wanted.
    on_job : callable
        Told of each job before it runs, and how many are left, as far as that is known: the blocks of a dataset are
        once it is indexed.
    """
    graph.judge_anew()
    waiting = [ref for ref in graph.behind(refs) if graph.state(ref) != "fresh"]
    for done, ref in enumerate(waiting):
        job = graph.job(ref)
        if graph.state(ref) == "stale" or not job.is_done():
            on_job(ref, len(waiting) - done)
            stage = load_stage(job.stage)
            with sources.noted(stage, [(graph.description_path(ref), job)]):
                stage.run(job)
        if job.stage == "dataset":  # what is made of blocks is known only now
            return make(graph, refs, on_job)
    graph.judge_anew()
    return None
