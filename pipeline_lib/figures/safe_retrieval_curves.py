"""Table 1 of the paper as curves: error of the nearest-neighbour search over the share of images that is left out.

As queries, in the database, and as both; by the uncertainty, by the distance to the nearest neighbour, and by both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline_lib.evaluation.spec import SIGNALS
from pipeline_lib.figures import style
from pipeline_lib.tables.reading import read_sets
from pipeline_lib.tables.spec import SetsSpec, refs
from pipeline_lib.tables.summary import EvaluationSet, names

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline_lib.config.config import Config
    from pipeline_lib.core.jobs import Job, Refs

CATEGORY, LABEL, PAPER = "Retrieval", "1-NN error without uncertain images", "Table 1 as curves"
SIZE = (6.75, 4.0)
# What each colour and marker stands for; these three are light, middle and dark in a grey print.
QUANTITIES = {
    "clean_database": ("removed from the database", style.series(1)),
    "clean_queries": ("rejected as queries", style.series(2)),
    "clean_both": ("rejected and removed", style.series(0)),
}
LABELS = {"uncertainty": "by uncertainty u", "distance": "by 1-NN distance", "both": "by distance and u"}
_MARK_EVERY = 3
STEPS = (1, 2, 5, 10)


class Spec(SetsSpec):
    """What is shown: the first variant on the first backbone."""

    backbone: str
    variant: str


def inputs(config: Config) -> Refs:
    """Return what the figure is drawn from: each set, the upstream one first."""
    spec = Spec.of(config)
    return {"safe_retrieval": refs("safe_retrieval", spec.sets, backbone=spec.backbone, variant=spec.variant)}


def figure_of(job: Job[Spec], width: float, height: float) -> Figure:
    """Read and draw."""
    return draw(read_tables(job, "curves.csv"), job.spec.upstream, job.spec.backbone, job.spec.variant, width, height)


def read_tables(job: Job[Spec], file: str) -> dict[EvaluationSet, pd.DataFrame]:
    """Return a table of every set: `curves.csv` or `surface.csv`."""
    spec, folders = job.spec, job.all_inputs("safe_retrieval")
    return read_sets(folders, spec.sets, file, backbone=spec.backbone, variant=spec.variant)


@style.styled
def draw(
    curves: Mapping[EvaluationSet, pd.DataFrame],
    upstream: EvaluationSet,
    backbone: str,
    variant: str,
    width: float,
    height: float,
) -> Figure:
    """Return one panel per set: the error without uncertain queries, without an uncertain database, and without both.

    Colour and marker tell how images are left out, line style by what; the largest of all images are, whatever their
    class. Lines are medians over seeds, bands go
    from the lowest to the highest.

    curves: per set, rows as in `curves.csv`. width, height: inches.
    """
    seeds = max(table["seed"].nunique() for table in curves.values())
    subtitle = (
        f"Heads on {style.shorten(backbone)}, variant {style.shorten(variant)}, trained on "
        f"{style.shorten(upstream.dataset)} (upstream). A share of the images is rejected as queries, removed from the "
        "database, or both: those of the largest u, the farthest from their nearest neighbours, or by both together. "
        "None of these needs a query's label. "
        + (
            f"Median of {style.plural(seeds, 'seed')}, band: minimum to maximum."
            if seeds > 1
            else f"{style.plural(seeds, 'seed')}."
        )
    )
    figure, _ = style.new_figure(width, height, "1-NN error without the most uncertain images", subtitle)
    columns = columns_of(len(curves))
    panels = style.small_multiples(figure, len(curves), columns, sharex=True)
    for panel, (pair, name) in zip(panels, names(list(curves)).items(), strict=True):
        _panel(panel, curves[pair])
        n = int(curves[pair]["n_queries"].max())
        panel.set_title(f"{set_title(name, pair == upstream, columns)}\nn = {n:,}")
    for panel in panels[-columns:]:
        panel.set_xlabel("share left out in %")
    for panel in panels[::columns]:
        panel.set_ylabel("1-NN error")
    style.legend(figure, _handles(), width)
    return figure


def columns_of(panels: int) -> int:
    """Return the number of panels in a row."""
    return style.columns_of(panels, 4 if panels > 6 else 3)


def set_title(name: str, is_upstream: bool, columns: int) -> str:
    """Return the title of a set's panel, as short as the number of panels in a row asks for."""
    ending = " (upstream)" if is_upstream else ""
    return f"{style.shorten(name, (26 if columns < 4 else 20) - len(ending))}{ending}"


def _panel(axes: Axes, table: pd.DataFrame) -> None:
    from matplotlib.ticker import MaxNLocator

    of_all = table[table["kind"] == "global"]
    for offset, (quantity, (_, look)) in enumerate(QUANTITIES.items()):
        for number, signal in enumerate(SIGNALS):
            errors = of_all[of_all["signal"] == signal].groupby("share")[quantity].agg(["median", "min", "max"])
            share = 100 * errors.index.to_numpy()
            axes.fill_between(share, errors["min"], errors["max"], color=look.colour, alpha=0.15, linewidth=0)
            axes.plot(
                share,
                errors["median"],
                color=look.colour,
                linestyle=style.series(number).line,
                linewidth=1.0,
                marker=look.marker,
                markersize=3.5,
                markevery=(offset, _MARK_EVERY),  # markers of different lines side by side, not on each other
                gid=f"{quantity}/{signal}",
            )
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    axes.grid(**style.GRID)


def _handles() -> list[Artist]:
    """Return quantities and signals in turn: a legend is filled column by column, so each gets a row of its own."""
    quantities = [
        style.handle(label, color=look.colour, marker=look.marker, markersize=3.5)
        for label, look in QUANTITIES.values()
    ]
    signals = [
        style.handle(label, color="black", linestyle=style.series(number).line)
        for number, label in enumerate(LABELS.values())
    ]
    return [handle for pair in zip(quantities, signals, strict=True) for handle in pair]
