"""Reliability: the share of wrong nearest neighbours over the calibrated probability of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline_lib.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline_lib.calibration.reliability import ReliabilityBins

SIZE = (4.5, 3.8)
_DIAGONAL: style.Look = {"color": style.GREY, "linewidth": 0.8, "linestyle": "--"}


@style.styled
def draw(heads: Mapping[str, ReliabilityBins], named: str, images: int, width: float, height: float) -> Figure:
    """Return the figure: one line for all heads and one per seed.

    Each point is a bin with the exact 95 % interval of its share.

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
    handles = [style.handle("perfect calibration", **_DIAGONAL)]
    for number, (name, bins) in enumerate(heads.items()):
        look = style.series(number).marked_line
        errors = [bins.wrong - bins.low, bins.high - bins.wrong]
        axes.errorbar(bins.probability, bins.wrong, errors, elinewidth=0.6, gid=name, **look)
        label = "all heads, mean of their ranks" if name == "all" else name.replace("seed", "seed ")
        handles.append(style.handle(label, **look))
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="share of wrong neighbours")
    style.show_percent(axes.xaxis, axes.yaxis)
    axes.grid(color="0.9", linewidth=0.5)
    style.legend(figure, handles, width)
    return figure
