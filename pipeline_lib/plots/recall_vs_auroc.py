"""Figure 4 of the paper: Recall@1 against R-AUROC, one point per seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline_lib.plots import style
from pipeline_lib.tables.summary import EvaluationSet, Summary, names


def points(
    metrics: pd.DataFrame, averaged: Sequence[EvaluationSet], backbones: Sequence[str], variants: Sequence[str]
) -> pd.DataFrame:
    """Return one row per backbone, variant and seed with both means over some sets.

    Columns backbone, method, variant, seed, r1, auroc_correct; method is `head`, or `class_entropy` with neither
    variant nor seed.

    metrics: rows as `tables.summary.read_metrics` gives them.
    """
    sets = set(averaged)
    rows = metrics[[pair in sets for pair in metrics[["dataset", "split"]].itertuples(index=False, name=None)]]
    recall = rows[(rows["metric"] == "r1") & (rows["method"] == "representation")]
    auroc = rows[rows["metric"] == "auroc_correct"]
    is_head = (auroc["method"] == "head") & auroc["variant"].isin(variants)
    auroc = auroc[(is_head | (auroc["method"] == "class_entropy")) & auroc["backbone"].isin(backbones)]
    key = ["backbone", "method", "variant", "seed"]
    means = auroc.groupby(key, sort=False, dropna=False)["value"].mean().rename("auroc_correct").reset_index()
    return means.join(recall.groupby("backbone")["value"].mean().rename("r1"), on="backbone")[
        [*key, "r1", "auroc_correct"]
    ]


def published_points(published: pd.DataFrame) -> pd.DataFrame:
    """Return the printed points of Figure 4: columns backbone, variant, r1, auroc_correct; one row per seed.

    A head that left its backbone as it was has the backbone's Recall@1, one that was trained jointly its own.

    published: rows of `workflow/published`, as `tables.summary.read_metrics` gives them.
    """
    is_seed = published["seed"].notna() & (published["method"] == "head")
    auroc = published[is_seed & (published["metric"] == "auroc_correct")]
    own = published[is_seed & (published["metric"] == "r1")]
    key = ["backbone", "variant", "seed", "dataset"]
    merged = auroc.merge(own[[*key, "value"]], on=key, how="left", suffixes=("", "_own"))
    of_backbone = published[(published["method"] == "representation") & (published["metric"] == "r1")]
    merged = merged.merge(
        of_backbone[["backbone", "dataset", "value"]],
        on=["backbone", "dataset"],
        how="left",
        suffixes=("", "_backbone"),
    )
    merged["r1"] = merged["value_own"].fillna(merged["value_backbone"])
    points = merged.rename(columns={"value": "auroc_correct"})[["backbone", "variant", "r1", "auroc_correct"]]
    return points.dropna().reset_index(drop=True)


@style.styled
def draw(
    metrics: pd.DataFrame,
    published: pd.DataFrame | None,
    averaged: Sequence[EvaluationSet],
    backbones: Sequence[str],
    variants: Sequence[str],
    width: float,
    height: float,
) -> Figure:
    """Return the scatter plot: colour and fill tell the backbone, the marker tells the variant.

    A horizontal dash is the R-AUROC of the backbone's class entropy. The published points of the paper's Figure 4 stand
    in grey behind; they are means over CUB, CARS and SOP, whatever ours are. width, height: inches.
    """
    table = points(metrics, averaged, backbones, variants)
    heads = table[table["method"] == "head"]
    label = names(averaged)
    seeds = heads["seed"].nunique()
    find = Summary(metrics)
    images = int(np.nansum([find("r1", each, backbones[0], "representation", statistic="n") for each in averaged]))
    subtitle = (
        f"Each point is one head ({style.plural(seeds, 'seed')} per backbone"
        + (" and variant" if len(variants) > 1 else f", variant {style.shorten(variants[0])}")
        + f"), mean over {style.plural(len(averaged), 'downstream dataset')} ({style.plural(images, 'image')}): "
        + f"{style.listed([label[each] for each in averaged])}."
    )
    figure, _ = style.new_figure(width, height, "Recall@1 and R-AUROC of each backbone", subtitle)
    axes = figure.add_subplot()
    theirs = published_points(published) if published is not None else pd.DataFrame()
    for name, rows in theirs.groupby(["backbone", "variant"]) if len(theirs) else ():
        axes.plot(rows["r1"], rows["auroc_correct"], linestyle="", marker=".", color="0.72", zorder=1, gid=f"{name}")
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
    handles = _handles(backbones, variants, has_entropy)
    if len(theirs):
        dot = {"marker": ".", "color": "0.72"}
        handles.append(Line2D([], [], linestyle="", label="published: ViTs on CUB, CARS, SOP", **dot))
    style.legend(figure, handles, width)
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
