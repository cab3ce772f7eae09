"""Reliability: the share of wrong nearest neighbours over the calibrated probability of one."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from pipeline_lib.calibration.reliability import ReliabilityBins
from pipeline_lib.plots import style

_DIAGONAL = {"color": style.GREY, "linewidth": 0.8, "linestyle": "--"}


@style.styled
def draw(heads: Mapping[int, ReliabilityBins], named: str, images: int, width: float, height: float) -> Figure:
    """Return the figure: one line per seed, each of its points a bin with the exact 95 % interval of its share.

    named: backbone, variant and set, for the title. images: how many the calibration has learned from.
    width, height: inches.
    """
    others = int(next(iter(heads.values())).images.sum())
    figure, _ = style.new_figure(
        width,
        height,
        f"Calibrated probability of a wrong nearest neighbour: {named}",
        f"Calibrated on {style.plural(images, 'labelled image')}, shown on {style.plural(others, 'other')} in bins of "
        "about equally many. Bars: exact 95 % intervals. On the dashed line, what was predicted came true.",
    )
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], gid="diagonal", **_DIAGONAL)
    handles = [Line2D([], [], label="perfect calibration", **_DIAGONAL)]
    for place, (seed, bins) in enumerate(heads.items()):
        look = style.series(place)
        line = {"color": look.colour, "marker": look.marker, "fillstyle": look.fill, "linestyle": look.line}
        errors = [bins.wrong - bins.low, bins.high - bins.wrong]
        axes.errorbar(bins.probability, bins.wrong, errors, elinewidth=0.6, gid=f"seed{seed}", **line)
        handles.append(Line2D([], [], label=f"seed {seed}", **line))
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="share of wrong neighbours")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g} %"))
    axes.grid(color="0.9", linewidth=0.5)
    style.legend(figure, handles, width)
    return figure
