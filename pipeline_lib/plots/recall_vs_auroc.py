"""Figure 4 of the paper: Recall@1 against R-AUROC, one point per seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline_lib.plots import style
from pipeline_lib.tables.summary import MEAN_PREFIX, EvaluationSet, Summary, names


def points(metrics: pd.DataFrame, backbones: Sequence[str], variants: Sequence[str]) -> pd.DataFrame:
    """Return one row per backbone, variant and seed with both means over the downstream sets.

    Columns backbone, method, variant, seed, r1, auroc_correct; method is `head`, or `class_entropy` with neither
    variant nor seed.

    metrics: rows as `tables.summary.read_metrics` gives them.
    """
    recall = metrics[(metrics["metric"] == f"{MEAN_PREFIX}r1") & (metrics["method"] == "representation")]
    auroc = metrics[metrics["metric"] == f"{MEAN_PREFIX}auroc_correct"]
    is_head = (auroc["method"] == "head") & auroc["variant"].isin(variants)
    auroc = auroc[(is_head | (auroc["method"] == "class_entropy")) & auroc["backbone"].isin(backbones)]
    merged = auroc.merge(recall[["backbone", "value"]], on="backbone", suffixes=("", "_r1"))
    merged = merged.rename(columns={"value": "auroc_correct", "value_r1": "r1"})
    return merged[["backbone", "method", "variant", "seed", "r1", "auroc_correct"]].reset_index(drop=True)


@style.styled
def draw(
    metrics: pd.DataFrame,
    downstream: Sequence[EvaluationSet],
    backbones: Sequence[str],
    variants: Sequence[str],
    width: float,
    height: float,
) -> Figure:
    """Return the scatter plot: colour and fill tell the backbone, the marker tells the variant.

    A horizontal dash is the R-AUROC of the backbone's class entropy. width, height: inches.
    """
    table = points(metrics, backbones, variants)
    heads = table[table["method"] == "head"]
    label = names(downstream)
    seeds = heads["seed"].nunique()
    find = Summary(metrics)
    images = int(np.nansum([find("r1", each, backbones[0], "representation", statistic="n") for each in downstream]))
    subtitle = (
        f"Each point is one head ({style.plural(seeds, 'seed')} per backbone"
        + (" and variant" if len(variants) > 1 else f", variant {style.shorten(variants[0])}")
        + f"), mean over {style.plural(len(downstream), 'downstream dataset')} ({style.plural(images, 'image')}): "
        + f"{style.listed([label[each] for each in downstream])}."
    )
    figure, _ = style.new_figure(width, height, "Recall@1 and R-AUROC of each backbone", subtitle)
    axes = figure.add_subplot()
    for place, backbone in enumerate(backbones):
        look = style.series(place)
        mine = table[table["backbone"] == backbone]
        entropy = mine[mine["method"] == "class_entropy"]
        axes.plot(entropy["r1"], entropy["auroc_correct"], linestyle="", marker="_", markersize=13, color=look.colour)
        for number, variant in enumerate(variants):
            rows = mine[(mine["method"] == "head") & (mine["variant"] == variant)]
            axes.plot(
                rows["r1"],
                rows["auroc_correct"],
                linestyle="",
                marker=style.series(number).marker,
                color=look.colour,
                fillstyle=look.fill,
                markerfacecoloralt="white",
                gid=f"{backbone}/{variant}",
            )
    axes.margins(0.12)
    axes.set_xlabel("Recall@1")
    axes.set_ylabel("R-AUROC")
    axes.grid(color="0.88", linewidth=0.5)
    has_entropy = bool((table["method"] == "class_entropy").any())
    style.legend(figure, _handles(backbones, variants, has_entropy), width)
    return figure


def _handles(backbones: Sequence[str], variants: Sequence[str], has_entropy: bool) -> list[Artist]:
    handles: list[Artist] = []
    for place, backbone in enumerate(backbones):
        look = style.series(place)
        marker = {"marker": "o", "fillstyle": look.fill, "color": look.colour, "markerfacecoloralt": "white"}
        handles.append(Line2D([], [], linestyle="", label=style.shorten(backbone), **marker))
    if len(variants) > 1:
        for number, variant in enumerate(variants):
            marker = {"marker": style.series(number).marker, "color": style.GREY}
            handles.append(Line2D([], [], linestyle="", label=style.shorten(variant), **marker))
    if has_entropy:
        dash = {"marker": "_", "markersize": 9, "color": "black"}
        handles.append(Line2D([], [], linestyle="", label="classifier's entropy", **dash))
    return handles
