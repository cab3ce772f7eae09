"""The figures of a report, each as wide as one column of text, so that they can be read on a phone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipeline_lib.arrays.evaluation import REJECTED, rejection_curve
from pipeline_lib.figures import style
from pipeline_lib.figures.density import LARGEST, density, shown_range
from pipeline_lib.metrics.selective import risk_coverage_curve

WIDTH = 3.5
_HEIGHT = 3.0
_SHOWN = 6  # as many as can be told apart
_POINTS = 400
_ORACLE: style.Look = {"color": "0.35", "linewidth": 0.8}
_CHANCE: style.Look = {"color": style.GREY, "linewidth": 0.8, "linestyle": (0, (1, 1.5))}

# What each figure shows, for readers who don't see it.
TEXTS = {
    "rejection": "Line plot: 1-NN error of the kept queries after rejecting the most uncertain 0 to 50 percent.",
    "risk_coverage": "Line plot: 1-NN error of the least uncertain queries over the share of queries that is kept.",
    "roc": "Line plot: share of wrong queries found over share of right queries flagged.",
    "densities": "Density plots: distribution of each uncertainty over right and over wrong queries.",
}


def draw_figures(uncertainties: Mapping[str, np.ndarray], correct: np.ndarray | None, name: str) -> dict[str, Figure]:
    """Return the figures of a report by file name.

    uncertainties: float64 [n] by name; the first six are shown. correct: bool [n]; None = not known, nothing is drawn.
    name: the model's. Where all images are right or all are wrong, there is no `roc`.
    """
    if correct is None:
        return {}
    shown = dict(list(uncertainties.items())[:_SHOWN])
    of = f"{style.shorten(name)}, {style.plural(len(correct), 'query').replace('querys', 'queries')}"
    if len(shown) < len(uncertainties):
        of += f", the first {_SHOWN} of {len(uncertainties)} uncertainties"
    figures = {"rejection": _rejection(shown, ~correct, of), "risk_coverage": _risk_coverage(shown, ~correct, of)}
    if correct.any() and not correct.all():
        figures["roc"] = _roc(shown, ~correct, of)
    return figures | {"densities": _densities(shown, correct, of)}


def roc_points(uncertainty: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of right and of wrong images with u at or above each threshold, from (0, 0) to (1, 1).

    One point per value of u: ties are passed in a straight line, as the AUROC counts them.
    uncertainty: float [n]. wrong: bool [n] of both kinds.
    """
    order = np.argsort(-uncertainty, kind="stable")
    ordered, found = uncertainty[order], np.cumsum(wrong[order])
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    flagged = ends + 1 - found[ends]
    return np.append(0, flagged) / flagged[-1], np.append(0, found[ends]) / found[-1]


@style.styled
def _rejection(shown: Mapping[str, np.ndarray], wrong: np.ndarray, of: str) -> Figure:
    subtitle = f"{of}. Error of the queries that are kept; oracle: wrong ones are rejected first."
    figure, axes = _panel("1-NN error after rejecting the most uncertain", subtitle, _handles(shown, with_markers=True))
    share = 100 * np.array(REJECTED)
    highest = float(wrong.mean())
    for position, (name, uncertainty) in enumerate(shown.items()):
        error = 100 * np.array(rejection_curve(uncertainty, wrong))
        highest = max(highest, float(error.max()) / 100)
        axes.plot(share, error, **_line(position), **_marker(position), gid=name, zorder=3, clip_on=False)
    axes.plot(share, 100 * np.array(rejection_curve(wrong.astype(float), wrong)), **_ORACLE)
    axes.axhline(100 * wrong.mean(), **_CHANCE)
    axes.set(xlabel="rejected share of queries (%)", ylabel="1-NN error (%)", xlim=(0, 50))
    axes.set_ylim(0, 105 * max(highest, 0.01))
    return figure


@style.styled
def _risk_coverage(shown: Mapping[str, np.ndarray], wrong: np.ndarray, of: str) -> Figure:
    subtitle = f"{of}. The area below a curve is its AURC; oracle: right ones are kept first."
    figure, axes = _panel("Risk over coverage", subtitle, _handles(shown))
    highest = float(wrong.mean())
    for position, (name, uncertainty) in enumerate(shown.items()):
        coverage, risk = _thin(*risk_coverage_curve(uncertainty, wrong))
        axes.plot(100 * coverage, 100 * risk, **_line(position), gid=name, zorder=3)
        # The first few queries may all be wrong: they must not flatten the rest.
        highest = max(highest, float(risk[coverage >= 0.02].max()))
    coverage, risk = _thin(*risk_coverage_curve(wrong.astype(float), wrong))
    axes.plot(100 * coverage, 100 * risk, **_ORACLE)
    axes.axhline(100 * wrong.mean(), **_CHANCE)
    axes.set(xlabel="coverage: kept share of queries (%)", ylabel="risk: 1-NN error (%)", xlim=(0, 100))
    axes.set_ylim(0, 108 * max(highest, 0.01))
    return figure


@style.styled
def _roc(shown: Mapping[str, np.ndarray], wrong: np.ndarray, of: str) -> Figure:
    subtitle = f"{of}. The area below a curve is its R-AUROC; dotted: chance."
    figure, axes = _panel(
        "Finding wrong neighbours by their uncertainty", subtitle, _handles(shown, with_references=False)
    )
    for position, (name, uncertainty) in enumerate(shown.items()):
        flagged, found = _thin(*roc_points(uncertainty, wrong))
        axes.plot(100 * flagged, 100 * found, **_line(position), gid=name, zorder=3)
    axes.plot([0, 100], [0, 100], **_CHANCE)
    axes.set(xlabel="right queries flagged (%)", ylabel="wrong queries found (%)", xlim=(0, 100), ylim=(0, 101))
    axes.set_aspect("equal")
    return figure


@style.styled
def _densities(shown: Mapping[str, np.ndarray], correct: np.ndarray, of: str) -> Figure:
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    right, wrong = int(correct.sum()), int((~correct).sum())
    subtitle = f"{of}: {right:,} right, {wrong:,} wrong. Each density has area one; dashes: medians."
    height = _HEIGHT if rows == 1 else 1.3 + 1.25 * rows
    figure, _ = style.new_figure(WIDTH, height, "Uncertainty of right and of wrong queries", subtitle)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    for axes, (name, uncertainty) in zip(panels, shown.items(), strict=False):
        _density_panel(axes, uncertainty, correct)
        axes.set_title(style.shorten(name, 22))
        axes.set_xlabel("uncertainty u")
        axes.set_ylabel("density" if axes in panels[::columns] else "")
    handles = [Patch(color="0.78", label="right"), Line2D([], [], color=style.series(0).colour, label="wrong")]
    style.legend(figure, handles, WIDTH)
    return figure


def _density_panel(axes: Axes, uncertainty: np.ndarray, correct: np.ndarray) -> None:
    uncertainty = np.clip(uncertainty, -LARGEST, LARGEST)
    low, high = shown_range([uncertainty], 0.005)
    colour = style.series(0).colour
    for chosen, median_colour in ((correct, "0.4"), (~correct, colour)):
        if chosen.any():
            u, curve = density(uncertainty[chosen], low, high)
            if median_colour == colour:
                axes.plot(u, curve, color=colour)
            else:
                axes.fill_between(u, 0, curve, color="0.78", linewidth=0)
            axes.axvline(np.median(uncertainty[chosen]), color=median_colour, linewidth=0.8, linestyle=(0, (2, 1.5)))
    axes.set_xlim(low, high)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=4)


def _panel(title: str, subtitle: str, handles: list[Line2D]) -> tuple[Figure, Axes]:
    """Return a figure of one panel, with its legend; a long legend makes it higher."""
    # Two names stand side by side in half the width each, less what the lines before them take.
    columns = 2 if max(style.text_inches(str(handle.get_label())) for handle in handles) < WIDTH / 2 - 0.6 else 1
    height = _HEIGHT + 0.14 * max(0, math.ceil(len(handles) / columns) - 2)
    figure, _ = style.new_figure(WIDTH, height, title, subtitle)
    style.legend(figure, handles, WIDTH)
    return figure, figure.subplots()


def _handles(shown: Mapping[str, np.ndarray], with_markers: bool = False, with_references: bool = True) -> list[Line2D]:
    handles = []
    for position, name in enumerate(shown):
        label = style.shorten(name).lstrip("_")  # matplotlib hides labels with a leading underscore
        marker = _marker(position) if with_markers else {}
        handles.append(Line2D([], [], label=label, **_line(position), **marker))
    if with_references:
        handles += [Line2D([], [], label="oracle", **_ORACLE), Line2D([], [], label="random order", **_CHANCE)]
    return handles


def _line(position: int) -> style.Look:
    return {"color": style.series(position).colour, "linestyle": style.series(position).line}


def _marker(position: int) -> style.Look:
    return {"marker": style.series(position).marker, "fillstyle": style.series(position).fill, "markersize": 3.5}


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return at most about 400 of the points, evenly spaced in their order; both ends stay."""
    kept = np.unique(np.linspace(0, len(x) - 1, _POINTS).round().astype(int))
    return x[kept], y[kept]
