"""Jobs that one process does together, because they share what takes longest: reading a cache, starting, decoding.

Which of them a run needs is known when it is planned. Processes that Snakemake starts for single jobs, on other
machines too, read what the planning process wrote down: by then some may be done.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from pipeline_lib.core.artefacts import writing_file
from pipeline_lib.core.jobs import Ref
from pipeline_lib.stages.graph import Graph

# A rule is named after the first of what its jobs have in common: the backbone, the dataset and the split.
_NAMED = 3


def planned_bundles(graph: Graph, name: str, refs: Iterable[Ref], plan: bool) -> dict[str, list[Ref]]:
    """Return the artefacts that are to be made together, by the name of their rule.

    Parameters
    ----------
    graph : Graph
        What is stale.
    name : str
        How the rules' names begin.
    refs : iterable of Ref
        The artefacts of a stage that the config asks for.
    plan : bool
        Whether this process plans the run; otherwise what was planned is read, if anything.
    """
    path = graph.described / f"{name}.json"
    if plan:
        bundles: dict[str, list[Ref]] = {}
        for shared, group in graph.together(refs):
            rule = "_".join([name, *shared[:_NAMED]])
            bundles[rule if rule not in bundles else f"{rule}_{len(bundles)}"] = group
        text = json.dumps({rule: [[ref.stage, ref.wildcards] for ref in group] for rule, group in bundles.items()})
        try:
            with writing_file(path) as file:
                file.write(text)
        except OSError:
            pass  # of results that can only be read; nothing will be started there
        return bundles
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    return {rule: [Ref.to(stage, **dict(wildcards)) for stage, wildcards in group] for rule, group in content.items()}
