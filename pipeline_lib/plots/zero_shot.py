"""Figure 1 of the paper: R-AUROC on every dataset."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline_lib.plots import style
from pipeline_lib.tables.summary import EvaluationSet, Summary, names

CHANCE = 0.5
_GROUP_WIDTH = 0.8
_WIDEST_BAR_INCHES = 0.6


@style.styled
def draw(
    metrics: pd.DataFrame,
    upstream: EvaluationSet,
    downstream: Sequence[EvaluationSet],
    backbones: Sequence[str],
    variant: str,
    width: float,
    height: float,
) -> Figure:
    """Return bars from chance level to the head's median R-AUROC, one group per dataset and one bar per backbone.

    The upstream dataset comes first, behind it the downstream ones by falling R-AUROC (mean over backbones).
    Whiskers reach from the lowest to the highest seed; a diamond is the classifier's entropy.

    metrics: rows as `tables.summary.read_metrics` gives them. width, height: inches.
    """
    find = Summary(metrics)
    order = [upstream, *by_falling_auroc(find, downstream, backbones, variant)]
    seeds = _largest(find, order, backbones, variant, "seeds")
    title = f"Zero-shot R-AUROC of pretrained uncertainties, variant {style.shorten(variant)}"
    subtitle = (
        f"Bars: from chance (0.5) to the median over {style.plural(seeds, 'seed')}"
        + ("; whiskers: lowest and highest seed. " if seeds > 1 else ". ")
        + f"Heads learnt on {style.shorten(upstream.dataset)} and never saw the other "
        f"{style.plural(len(downstream), 'dataset')}. n: images."
    )
    figure, _ = style.new_figure(width, height, title, subtitle)
    axes = figure.add_subplot()
    slot_inches = (width - 0.6) / len(order)
    bar = min(_GROUP_WIDTH / len(backbones), _WIDEST_BAR_INCHES / slot_inches)
    for place, backbone in enumerate(backbones):
        _bars(axes, find, order, backbone, variant, place, offset=(place - (len(backbones) - 1) / 2) * bar, width=bar)
    axes.axhline(CHANCE, color="black", linewidth=0.8)
    axes.axvline(0.5, color=style.GREY, linewidth=0.6, linestyle=(0, (3, 3)))
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.set_ylabel("R-AUROC")
    axes.grid(axis="y", color="0.88", linewidth=0.5)
    _label_sets(axes, find, order, backbones, variant, slot_inches)
    style.legend(figure, _handles(axes, find, order, backbones), width)
    return figure


def by_falling_auroc(
    find: Summary, evaluation_sets: Sequence[EvaluationSet], backbones: Sequence[str], variant: str
) -> list[EvaluationSet]:
    """Return the sets by falling R-AUROC of the head (mean over backbones of medians over seeds), unknown ones last."""

    def rank(evaluation_set: EvaluationSet) -> float:
        medians = [find("auroc_correct", evaluation_set, backbone, "head", variant) for backbone in backbones]
        known = [median for median in medians if not math.isnan(median)]
        return -float(np.mean(known)) if known else math.inf

    return sorted(evaluation_sets, key=rank)


def _bars(
    axes: Axes,
    find: Summary,
    order: list[EvaluationSet],
    backbone: str,
    variant: str,
    place: int,
    offset: float,
    width: float,
) -> None:
    look = style.series(place)
    position = np.arange(len(order)) + offset
    statistic = {
        name: np.array([find("auroc_correct", each, backbone, "head", variant, name) for each in order])
        for name in ("median", "minimum", "maximum")
    }
    axes.bar(
        position,
        statistic["median"] - CHANCE,
        width=0.92 * width,
        bottom=CHANCE,
        color=look.colour,
        hatch=look.hatch,
        edgecolor="white" if look.hatch else look.colour,
        linewidth=0,
        label=style.shorten(backbone),
    )
    spread = [statistic["median"] - statistic["minimum"], statistic["maximum"] - statistic["median"]]
    if np.nanmax(spread, initial=0) > 0:
        axes.errorbar(
            position, statistic["median"], yerr=spread, fmt="none", ecolor="black", elinewidth=0.8, capsize=1.5
        )
    entropy = [find("auroc_correct", each, backbone, "class_entropy") for each in order]
    axes.plot(position, entropy, "D", markersize=3.2, markerfacecolor="white", markeredgecolor="black", zorder=4)


def _label_sets(
    axes: Axes,
    find: Summary,
    order: list[EvaluationSet],
    backbones: Sequence[str],
    variant: str,
    slot_inches: float,
) -> None:
    label = names(order)
    lines = []
    for place, evaluation_set in enumerate(order):
        n = _largest(find, [evaluation_set], backbones, variant, "n")
        lines.append([style.shorten(label[evaluation_set], 20), *(["upstream"] if place == 0 else []), f"n = {n:,}"])
    axes.tick_params(axis="x", length=0)
    if max(style.text_inches(line) for each in lines for line in each) + 0.05 < slot_inches:
        axes.set_xticks(range(len(order)), ["\n".join(each) for each in lines])
    else:
        axes.set_xticks(range(len(order)), [f"{each[0]}\n{', '.join(each[1:])}" for each in lines])
        for text in axes.get_xticklabels():
            text.set(rotation=35, ha="right", va="top", rotation_mode="anchor", linespacing=1.05)


def _handles(axes: Axes, find: Summary, order: list[EvaluationSet], backbones: Sequence[str]) -> list[Artist]:
    handles = axes.get_legend_handles_labels()[0]
    entropies = [find("auroc_correct", each, backbone, "class_entropy") for each in order for backbone in backbones]
    if not all(map(math.isnan, entropies)):
        diamond = {"marker": "D", "markersize": 3.2, "color": "black", "markerfacecolor": "white"}
        handles.append(Line2D([], [], linestyle="", label="classifier's entropy", **diamond))
    return handles


def _largest(
    find: Summary, evaluation_sets: list[EvaluationSet], backbones: Sequence[str], variant: str, statistic: str
) -> int:
    found = [
        find("auroc_correct", each, backbone, "head", variant, statistic)
        for each in evaluation_sets
        for backbone in backbones
    ]
    return int(max((value for value in found if not math.isnan(value)), default=0))
