"""Recall@1 against R-AUROC of every method of the URL benchmark, one point per seed, averaged over unseen datasets.

Up: the uncertainty finds more of the wrong neighbours. Right: fewer neighbours are wrong. Rows of the table with the
same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline_lib.figures import style
from pipeline_lib.tables.benchmark import Entry, Spec, seed_means, wanted
from pipeline_lib.tables.spec import METRICS
from pipeline_lib.tables.summary import EvaluationSet, names, read_metrics

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from pipeline_lib.config.config import Config
    from pipeline_lib.core.jobs import Job, Refs

__all__ = ["Spec", "draw", "figure_of", "inputs", "wanted"]
CATEGORY, LABEL, PAPER = "Zero-shot", "Recall@1 against R-AUROC of each method", "URL benchmark"
SIZE = (6.75, 3.6)
_CHANCE = 0.5


def inputs(config: Config) -> Refs:
    """Return what the figure is drawn from."""
    return METRICS


def figure_of(job: Job[Spec], width: float, height: float) -> Figure:
    """Read and draw."""
    return draw(read_metrics(job.input("metrics")), job.spec.entries, job.spec.averaged, width, height)


@style.styled
def draw(
    metrics: pd.DataFrame, entries: Sequence[Entry], averaged: Sequence[EvaluationSet], width: float, height: float
) -> Figure:
    """Return the figure: one panel per architecture; colour and marker tell the method.

    metrics: rows as `tables.summary.read_metrics` gives them. width, height: inches.
    """
    label = names(averaged)
    seeds = max(len(entry.backbones) for entry in entries)
    subtitle = (
        f"Each point is one model ({style.plural(seeds, 'seed')} per method), mean over "
        f"{style.plural(len(averaged), 'unseen dataset')}: {style.listed(list(label.values()))}. "
        "R-AUROC of the method's own uncertainty; dotted: chance."
    )
    figure, _ = style.new_figure(width, height, "Recall@1 and R-AUROC of each method", subtitle)
    architectures = list(dict.fromkeys(entry.architecture for entry in entries))
    looks = {method: style.series(k) for k, method in enumerate(dict.fromkeys(entry.method for entry in entries))}
    columns = style.columns_of(len(architectures), 3)
    panels = style.small_multiples(figure, len(architectures), columns, sharey=True)
    for panel, architecture in zip(panels, architectures, strict=True):
        for entry in entries:
            if entry.architecture == architecture:
                means = seed_means(metrics, entry, averaged)
                gid = f"{architecture}/{entry.method}"
                panel.plot(means["r1"], means["auroc_correct"], gid=gid, **looks[entry.method].points)
        panel.axhline(_CHANCE, color="0.55", linewidth=0.8, linestyle=(0, (1, 1.5)))
        panel.set_title(style.shorten(architecture))
        panel.set_xlabel("Recall@1")
        panel.margins(0.12)
        panel.grid(**style.GRID)
    for panel in panels[::columns]:
        panel.set_ylabel("R-AUROC")
    handles = [style.handle(style.shorten(name.replace("_", " ")), **look.points) for name, look in looks.items()]
    style.legend(figure, handles, width)
    return figure
