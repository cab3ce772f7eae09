"""Risk over coverage: how many of the answers that are left are wrong when the most uncertain images are refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from pipeline_lib.metrics.selective import risk_coverage_curve
from pipeline_lib.plots import style
from pipeline_lib.tables.summary import EvaluationSet, names

LOWEST_COVERAGE = 0.05
GRID = np.linspace(LOWEST_COVERAGE, 1.0, 191)
_COLUMNS = 5
_ROW_INCHES = 1.25
_BASELINES = {
    "class_entropy": "class entropy",
    "embedding_norm": "embedding norm",
    "knn_distance": "1-NN distance",
}


@dataclass(frozen=True)
class Selection:
    """What is needed to refuse images of one set: who is wrong, and the uncertainties that are to tell.

    wrong: whether the nearest neighbour has another label, bool [n]. head: u by seed, float [n].
    baselines: u by method, some of `_BASELINES`, float [n].
    """

    wrong: np.ndarray
    head: Mapping[int, np.ndarray]
    baselines: Mapping[str, np.ndarray]


def risk_on_grid(uncertainty: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Return the risk at each coverage of `GRID`, float64 [191].

    Between two coverages of the curve the number of errors, not the risk, is linear: images that share a value of u
    are refused in random order.
    """
    coverage, risk = risk_coverage_curve(uncertainty, wrong)
    return np.interp(GRID, np.append(0.0, coverage), np.append(0.0, coverage * risk)) / GRID


def oracle_risk(wrong: np.ndarray) -> np.ndarray:
    """Return the lowest risk possible at each coverage c of `GRID`, max(0, 1 - accuracy / c), float64 [191]."""
    return np.maximum(0.0, 1 - (1 - float(np.mean(wrong))) / GRID)


@style.styled
def draw(
    selections: Mapping[EvaluationSet, Selection], backbone: str, variant: str, width: float, height: float
) -> Figure:
    """Return one panel per set: 1-NN error of the images that are kept, over the share that is kept.

    The head's line is the seed with the (lower) median area, the band reaches from the lowest to the highest seed at
    each coverage. width, height: inches; the figure gets higher where many sets need more rows.
    """
    seeds = max(len(each.head) for each in selections.values())
    title = (
        f"Error of the nearest neighbour when uncertain images are refused: {style.shorten(backbone)}, "
        f"variant {style.shorten(variant)}"
    )
    subtitle = (
        "Risk: share of wrong nearest neighbours among the images that are kept. Coverage: share of images kept, the "
        f"least uncertain first, from {100 * LOWEST_COVERAGE:.0f} % on. Head: "
        + (f"seed with the median area of {seeds} seeds; band: lowest to highest. " if seeds > 1 else "1 seed. ")
        + "Oracle: refuses wrong ones first. (n): images."
    )
    columns = min(_COLUMNS, len(selections))
    rows = math.ceil(len(selections) / columns)
    heading = height - style.new_figure(width, height, title, subtitle)[1]
    figure, _ = style.new_figure(width, max(height, heading + 0.5 + rows * _ROW_INCHES), title, subtitle)
    panels = style.small_multiples(figure, len(selections), columns, sharex=True)
    label = names(list(selections))
    for place, (evaluation_set, selection) in enumerate(selections.items()):
        _panel(panels[place], selection)
        panels[place].set_title(f"{style.shorten(label[evaluation_set], 12)} ({len(selection.wrong):,})")
        if place % columns == 0:
            panels[place].set_ylabel("risk")
        if place + columns >= len(selections):
            panels[place].set_xlabel("coverage")
    style.legend(figure, _handles(seeds, list(next(iter(selections.values())).baselines)), width)
    return figure


def _panel(axes: Axes, selection: Selection) -> None:
    curves = np.array([risk_on_grid(uncertainty, selection.wrong) for uncertainty in selection.head.values()])
    by_area = np.argsort(curves.mean(axis=1), kind="stable")
    typical = curves[by_area[(len(curves) - 1) // 2]]
    axes.axhline(float(np.mean(selection.wrong)), **_LOOKS["random"])
    axes.plot(GRID, oracle_risk(selection.wrong), gid="oracle", **_LOOKS["oracle"])
    for method in selection.baselines:
        risk = risk_on_grid(selection.baselines[method], selection.wrong)
        axes.plot(GRID, risk, gid=method, **_LOOKS[method])
    axes.fill_between(GRID, curves.min(axis=0), curves.max(axis=0), **_BAND)
    axes.plot(GRID, typical, gid="head", **_LOOKS["head"])
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g} %"))
    axes.set_xticks([0, 0.5, 1])
    axes.locator_params(axis="y", nbins=4)
    axes.grid(color="0.9", linewidth=0.5)


_BAND = {"color": style.series(0).colour, "alpha": 0.25, "linewidth": 0}
_LOOKS = {
    "head": {"color": style.series(0).colour, "linewidth": 1.4},
    "class_entropy": {"color": style.series(1).colour, "linestyle": style.series(1).line, "linewidth": 1.1},
    "embedding_norm": {"color": style.series(2).colour, "linestyle": style.series(3).line, "linewidth": 1.1},
    "knn_distance": {"color": style.series(5).colour, "linestyle": style.series(4).line, "linewidth": 1.1},
    "oracle": {"color": "black", "linestyle": style.series(2).line, "linewidth": 1.0},
    "random": {"color": style.GREY, "linestyle": "-", "linewidth": 0.8},
}


def _handles(seeds: int, baselines: list[str]) -> list[Artist]:
    label = {"head": f"head ({style.plural(seeds, 'seed')})"} | {name: _BASELINES[name] for name in baselines}
    label |= {"oracle": "oracle", "random": "random"}
    return [Line2D([], [], label=text, **_LOOKS[method]) for method, text in label.items()]
