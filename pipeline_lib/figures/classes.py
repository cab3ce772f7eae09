"""The classes of each dataset: how uncertain their images are, and how often their nearest neighbours are wrong.

One point per class, at the median rank of its images' uncertainty among all images (0: the most certain) and at its
1-NN error; larger points have more images. Points on a rising line say that the uncertainty tells classes apart; how
well it tells right from wrong within them is the R-AUROC within classes, which stands beside the whole. Where the two
differ, one threshold for all rejects classes rather than images. u is the mean over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline_lib.figures import style
from pipeline_lib.figures.safe_retrieval_curves import columns_of, set_title
from pipeline_lib.tables import classes
from pipeline_lib.tables.spec import METRICS
from pipeline_lib.tables.summary import EvaluationSet, Summary, names, read_metrics

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline_lib.config.config import Config
    from pipeline_lib.core.jobs import Job, Refs

CATEGORY, LABEL, PAPER = "Retrieval", "classes, their uncertainty and error", ""
SIZE = (6.75, 4.2)
_ROW_INCHES = 1.5


class Spec(classes.Spec):
    """What is shown: the first variant on the first backbone."""


def inputs(config: Config) -> Refs:
    """Return what the figure is drawn from: `scores` and `baselines` of each set, the upstream one first."""
    spec = Spec.of(config)
    return {**METRICS, **spec.per_image(spec.sets)}


def figure_of(job: Job[Spec], width: float, height: float) -> Figure:
    """Read and draw."""
    metrics = read_metrics(job.input("metrics"))
    return draw(metrics, classes.classes_of_sets(job), job.spec, width, height)


@style.styled
def draw(
    metrics: pd.DataFrame, tables: Mapping[EvaluationSet, pd.DataFrame], spec: Spec, width: float, height: float
) -> Figure:
    """Return one panel per set. metrics: for the R-AUROC. tables: of `class_table`. width, height: inches."""
    find = Summary(metrics)
    subtitle = (
        f"{style.shorten(spec.backbone)}, variant {style.shorten(spec.variant)}. A point is a class, larger with more "
        "images. Above each set: R-AUROC of the head, whole and within classes, median over "
        f"{style.plural(len(spec.seeds), 'seed')}. n: images."
    )
    columns = columns_of(len(tables))
    rows = -(-len(tables) // columns)
    figure, _ = style.new_figure(width, height, "Uncertainty and error of the classes", subtitle, rows, _ROW_INCHES)
    panels = style.small_multiples(figure, len(tables), columns, sharex=True, sharey=True)
    for panel, (pair, name) in zip(panels, names(list(tables)).items(), strict=True):
        whole, within = (
            find.median_and_spread(metric, pair, spec.backbone, spec.variant).split("±")[0]
            for metric in ("auroc_correct", "auroc_within_classes")
        )
        n = int(tables[pair]["images"].sum())
        heading = set_title(name, pair == spec.upstream, columns)
        panel.set_title(f"{heading}\nn = {n:,}; {whole}, within {within}")
        _panel(panel, tables[pair])
    for panel in panels[-columns:]:
        panel.set_xlabel("median rank of u")
    for panel in panels[::columns]:
        panel.set_ylabel("1-NN error")
    return figure


def _panel(axes: Axes, table: pd.DataFrame) -> None:
    size = 3 + 20 * table["images"].to_numpy() / table["images"].max()
    look: style.Look = {"s": size, "color": style.series(0).colour, "alpha": 0.6, "linewidth": 0}
    axes.scatter(table["median_rank"].to_numpy(), table["error"].to_numpy(), **look)
    axes.set(xlim=(0, 1), ylim=(-0.03, 1.03))
    style.show_percent(axes.yaxis)
    axes.set_xticks([0, 0.5, 1])
    axes.grid(**style.GRID)
