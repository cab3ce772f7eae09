"""Error of the nearest-neighbour search over the shares of queries and of the database that are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline_lib.figures import style
from pipeline_lib.figures.safe_retrieval_curves import STEPS, Spec, columns_of, inputs, read_tables, set_title
from pipeline_lib.tables.summary import EvaluationSet, names

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from pipeline_lib.core.jobs import Job

__all__ = ["Spec", "draw", "figure_of", "inputs"]
CATEGORY, LABEL, PAPER = "Retrieval", "1-NN error by shares of queries and database", ""
SIZE = (6.75, 3.6)
_COLOURS = "cividis"  # perceptually uniform, and its grey print rises evenly too
_HIGHEST = 1.5  # of the colour scale: one set that gets much worse must not flatten all others


def figure_of(job: Job[Spec], width: float, height: float) -> Figure:
    """Read and draw."""
    return draw(read_tables(job, "surface.csv"), job.spec.upstream, job.spec.backbone, job.spec.variant, width, height)


@style.styled
def draw(
    surfaces: Mapping[EvaluationSet, pd.DataFrame],
    upstream: EvaluationSet,
    backbone: str,
    variant: str,
    width: float,
    height: float,
) -> Figure:
    """Return one heat map per set: the error in multiples of the error of all images, which the title says.

    All maps share one colour scale. Lines join equal errors, and are labelled with that error in %.

    surfaces: per set, rows as in `surface.csv`. width, height: inches.
    """
    seeds = max(table["seed"].nunique() for table in surfaces.values())
    subtitle = (
        f"Heads on {style.shorten(backbone)}, variant {style.shorten(variant)}, trained on "
        f"{style.shorten(upstream.dataset)} (upstream); the largest u of all images are left out. Colour: error "
        "relative to that of all images; lines: error in %. "
        + (f"Median of {style.plural(seeds, 'seed')}." if seeds > 1 else f"{style.plural(seeds, 'seed')}.")
    )
    figure, _ = style.new_figure(width, height, "1-NN error by rejected queries and removed database", subtitle)
    columns = columns_of(len(surfaces))
    panels = style.small_multiples(figure, len(surfaces), columns, sharex=True, sharey=True)
    errors = {pair: _median(table) for pair, table in surfaces.items()}
    of_all = {pair: float(error.to_numpy()[0, 0]) for pair, error in errors.items()}
    relative = {pair: error / of_all[pair] if of_all[pair] > 0 else error for pair, error in errors.items()}
    low = min(float(error.to_numpy().min()) for error in relative.values())
    worst = max(float(error.to_numpy().max()) for error in relative.values())
    high = min(max(1.0, worst), _HIGHEST)
    for panel, (pair, name) in zip(panels, names(list(surfaces)).items(), strict=True):
        image = _panel(panel, relative[pair], errors[pair], low, high)
        n = int(surfaces[pair]["n"].max())
        panel.set_title(f"{set_title(name, pair == upstream, columns)}\nn = {n:,}, full: {100 * of_all[pair]:.1f} %")
    figure.supxlabel("share of the database removed in %", fontsize=style.TEXT_SIZE)
    figure.supylabel("share of the queries rejected in %", fontsize=style.TEXT_SIZE)
    bar = figure.colorbar(
        image, ax=figure.axes, shrink=0.8, pad=0.02, aspect=30, extend="max" if worst > high else "neither"
    )
    bar.set_label("error relative to that of all images")
    bar.outline.set_linewidth(0.6)
    return figure


def _median(table: pd.DataFrame) -> pd.DataFrame:
    """Return the median error over seeds: query shares as rows, database shares as columns."""
    return table.pivot_table(index="query_share", columns="database_share", values="error", aggfunc="median")


def _panel(axes: Axes, relative: pd.DataFrame, error: pd.DataFrame, low: float, high: float) -> AxesImage:
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    queries, database = 100 * relative.index.to_numpy(), 100 * relative.columns.to_numpy()
    half_y, half_x = _half_step(queries), _half_step(database)
    image = axes.imshow(
        relative.to_numpy(),
        origin="lower",
        extent=(database[0] - half_x, database[-1] + half_x, queries[0] - half_y, queries[-1] + half_y),
        cmap=_COLOURS,
        vmin=low,
        vmax=high,
        aspect="auto",
        interpolation="nearest",
    )
    percent = 100 * error.to_numpy()
    levels = MaxNLocator(5).tick_values(percent.min(), percent.max())
    levels = levels[(levels > percent.min()) & (levels < percent.max())]
    if len(levels) and min(percent.shape) > 1:
        # The map is dark at its low end: lines are the opposite of what they stand on.
        shade = np.where((levels / percent[0, 0] - low) / (high - low) < 0.55, "white", "black")
        lines = axes.contour(database, queries, percent, levels=levels, colors=shade.tolist(), linewidths=0.8)
        axes.clabel(lines, fmt="%g", fontsize=style.TEXT_SIZE)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    axes.spines[:].set_visible(False)
    return image


def _half_step(shares: np.ndarray) -> float:
    import numpy as np

    return float(np.diff(shares).mean() / 2) if len(shares) > 1 else 2.5
