"""R-AUROC of the uncertainty heads, from chance (0.5) up, one group of bars per dataset.

The upstream dataset comes first, then the datasets that the heads never saw, by falling R-AUROC. Bars are medians over
seeds, whiskers the lowest and highest seed, marks what needs no head: the entropy of the classifier's prediction, the
distance to the nearest neighbour; and the head together with this distance. Lines show what the paper has for a
dataset, with its own model. In the form of Figure 1 of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline_lib.core.jobs import Ref
from pipeline_lib.figures import style
from pipeline_lib.tables.published import PUBLISHED, Counterparts, model
from pipeline_lib.tables.spec import METRICS, SetsSpec, read_beside
from pipeline_lib.tables.summary import METHODS, OF_HEADS, EvaluationSet, Summary, names

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline_lib.config.config import Config
    from pipeline_lib.core.jobs import Job, Refs

CATEGORY, LABEL, PAPER = "Zero-shot", "R-AUROC per dataset", "Figure 1"
SIZE = (6.75, 3.0)
CHANCE = 0.5
_GROUP_WIDTH = 0.8
_WIDEST_BAR_INCHES, _NARROWEST_BAR_INCHES = 0.6, 0.14
_AXIS_INCHES, _ROW_INCHES = 0.6, 1.5
_PUBLISHED: style.Look = {"color": style.series(2).colour, "linewidth": 1.4, "zorder": 3}
_MARK: style.Look = {"linestyle": "", "markersize": 3.2, "color": "black"}
# Side by side within a bar, as shares of its width.
_MARKS: dict[str, tuple[float, style.Look]] = {
    "class_entropy": (-0.25, _MARK | {"marker": "D", "markerfacecolor": "white"}),
    "knn_distance": (0.0, _MARK | {"marker": "o", "markerfacecolor": "white"}),
    "combination": (0.25, _MARK | {"marker": "o"}),
}


class Spec(SetsSpec):
    """What is shown: the first variant on every backbone."""

    backbones: tuple[str, ...]
    variant: str


def inputs(config: Config) -> Refs:
    """Return what the figure is drawn from."""
    return {**METRICS, "published": Ref.to("published", name=PUBLISHED)}


def figure_of(job: Job[Spec], width: float, height: float) -> Figure:
    """Read and draw."""
    spec, (metrics, published) = job.spec, read_beside(job)
    return draw(metrics, published, spec.upstream, spec.downstream, spec.backbones, spec.variant, width, height)


@style.styled
def draw(
    metrics: pd.DataFrame,
    published: pd.DataFrame | None,
    upstream: EvaluationSet,
    downstream: Sequence[EvaluationSet],
    backbones: Sequence[str],
    variant: str,
    width: float,
    height: float,
) -> Figure:
    """Return the figure, with one bar per backbone in each group, and a line where a value was published.

    metrics, published: rows as `tables.summary.read_metrics` gives them. width, height: inches; the figure gets higher
    where many bars need more rows.
    """
    import numpy as np

    find = Summary(metrics)
    order = [upstream, *by_falling_auroc(find, downstream, backbones, variant)]

    def statistic(name: str, method: str = "head", of: str = variant) -> np.ndarray:
        """Return a statistic over seeds, float64 [backbones, sets]."""
        return np.array(
            [[find("auroc_correct", pair, backbone, method, of, name) for pair in order] for backbone in backbones]
        )

    seeds = int(np.nanmax(statistic("seeds"), initial=0))
    title = f"Zero-shot R-AUROC of pretrained uncertainties, variant {style.shorten(variant)}"
    subtitle = (
        f"Bars: from chance (0.5) to the median over {style.plural(seeds, 'seed')}"
        + ("; whiskers: lowest and highest seed. " if seeds > 1 else ". ")
        + f"Heads learnt on {style.shorten(upstream.dataset)} and never saw the other "
        f"{style.plural(len(downstream), 'dataset')}. n: images."
    )
    theirs = _published(published, order, backbones)
    median, minimum, maximum = (statistic(name) for name in ("median", "minimum", "maximum"))
    marks = {method: statistic("median", method, variant if method in OF_HEADS else "") for method in _MARKS}
    images = [int(np.nanmax(column, initial=0)) for column in statistic("n").T]
    # As many sets in a row as leave room for what stands in a bar; rows of about equal length.
    most = max(1, int(_GROUP_WIDTH * (width - _AXIS_INCHES) / (len(backbones) * _NARROWEST_BAR_INCHES)))
    columns = style.columns_of(len(order), most)
    rows = math.ceil(len(order) / columns)
    figure, _ = style.new_figure(width, height, title, subtitle, rows, _ROW_INCHES, legend_inches=0.4)
    slot_inches = (width - _AXIS_INCHES) / columns
    bar = min(_GROUP_WIDTH / len(backbones), _WIDEST_BAR_INCHES / slot_inches)
    panels = figure.subplots(rows, 1, squeeze=False, sharey=True).ravel()
    for number, backbone in enumerate(backbones):
        look = style.series(number)
        spread = np.array([median[number] - minimum[number], maximum[number] - median[number]])
        for row, axes in enumerate(panels):
            shown = slice(row * columns, (row + 1) * columns)
            position = np.arange(len(order[shown])) + (number - (len(backbones) - 1) / 2) * bar
            axes.bar(
                position,
                median[number, shown] - CHANCE,
                width=0.92 * bar,
                bottom=CHANCE,
                color=look.colour,
                hatch=look.hatch,
                edgecolor="white" if look.hatch else look.colour,
                linewidth=0,
                label=style.shorten(backbone),
            )
            if np.nanmax(spread, initial=0) > 0:
                whiskers: style.Look = {"fmt": "none", "ecolor": "black", "elinewidth": 0.8, "capsize": 1.5}
                axes.errorbar(position, median[number, shown], yerr=spread[:, shown], **whiskers)
            for method, (offset, mark) in _MARKS.items():
                axes.plot(position + offset * bar, marks[method][number, shown], zorder=4, gid=method, **mark)
    for row, axes in enumerate(panels):
        shown = slice(row * columns, (row + 1) * columns)
        for name, values in theirs.items():
            centre = np.arange(len(order[shown]), dtype=float)
            axes.hlines(values[shown], centre - 0.45, centre + 0.45, gid=f"published {name}", **_PUBLISHED)
        axes.axhline(CHANCE, color="black", linewidth=0.8)
        axes.set_xlim(-0.5, columns - 0.5)
        axes.set_ylabel("R-AUROC")
        axes.grid(axis="y", **style.GRID)
        _label_sets(axes, order[shown], images[shown], slot_inches, names(order), upstream)
    panels[0].axvline(0.5, color=style.GREY, linewidth=0.6, linestyle=(0, (3, 3)))
    handles = panels[0].get_legend_handles_labels()[0]
    handles += [
        style.handle(METHODS[method], **mark)
        for method, (_, mark) in _MARKS.items()
        if not np.isnan(marks[method]).all()
    ]
    handles += [style.handle(f"published: {name}", **_PUBLISHED) for name in theirs]
    style.legend(figure, handles, width)
    return figure


def _published(
    published: pd.DataFrame | None, order: Sequence[EvaluationSet], backbones: Sequence[str]
) -> dict[str, list[float]]:
    """Return what was published for the sets (NaN: nothing), by the name of its model."""
    find = Counterparts(published)
    found: dict[str, list[float]] = {}
    for position, pair in enumerate(order):
        for backbone in backbones:
            if (theirs := find("auroc_correct", *pair, backbone)) is not None:
                values = found.setdefault(model(theirs.backbone), [math.nan] * len(order))
                values[position] = theirs.value
    return found


def by_falling_auroc(
    find: Summary, evaluation_sets: Sequence[EvaluationSet], backbones: Sequence[str], variant: str
) -> list[EvaluationSet]:
    """Return the sets by falling R-AUROC of the head (mean over backbones of medians over seeds), unknown ones last."""

    def rank(evaluation_set: EvaluationSet) -> float:
        medians = [find("auroc_correct", evaluation_set, backbone, "head", variant) for backbone in backbones]
        known = [median for median in medians if not math.isnan(median)]
        return -sum(known) / len(known) if known else math.inf

    return sorted(evaluation_sets, key=rank)


def _label_sets(
    axes: Axes,
    order: Sequence[EvaluationSet],
    images: Sequence[int],
    slot_inches: float,
    label: Mapping[EvaluationSet, str],
    upstream: EvaluationSet,
) -> None:
    texts = [[style.shorten(label[pair], 20), f"n = {n:,}"] for pair, n in zip(order, images, strict=True)]
    if upstream in order:
        texts[order.index(upstream)].insert(1, "upstream")
    axes.tick_params(axis="x", length=0)
    if max(style.text_inches(line) for lines in texts for line in lines) + 0.05 < slot_inches:
        axes.set_xticks(range(len(order)), ["\n".join(lines) for lines in texts])
    else:
        axes.set_xticks(range(len(order)), [f"{lines[0]}\n{', '.join(lines[1:])}" for lines in texts])
        for text in axes.get_xticklabels():
            text.set(rotation=35, ha="right", va="top", rotation_mode="anchor", linespacing=1.05)
