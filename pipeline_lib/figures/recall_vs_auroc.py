"""Recall@1 of each frozen backbone against the R-AUROC of its uncertainty heads, both averaged over unseen datasets.

One point is one seed; points of a backbone share their Recall@1, since the heads leave the backbone as it is. Dashes
mark the entropy of the classifier's prediction. In the form of Figure 4 of the paper, whose points are shown where the
datasets are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline_lib.core.jobs import Ref
from pipeline_lib.figures import style
from pipeline_lib.tables.published import PUBLISHED, RECIPE, model, parts
from pipeline_lib.tables.spec import METRICS, ViewSpec, read_beside
from pipeline_lib.tables.summary import EvaluationSet, Summary, names, on_sets

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

    from pipeline_lib.config.config import Config
    from pipeline_lib.core.jobs import Job, Refs

CATEGORY, LABEL, PAPER = "Zero-shot", "Recall@1 against R-AUROC", "Figure 4"
SIZE = (4.5, 3.4)
_LOWEST_INCHES = 1.8
_PUBLISHED: style.Look = {"linestyle": "", "markersize": 3.5, "color": "0.62"}


class Spec(ViewSpec):
    """What is shown."""

    averaged: tuple[EvaluationSet, ...]
    backbones: tuple[str, ...]
    variants: tuple[str, ...]


def inputs(config: Config) -> Refs:
    """Return what the figure is drawn from."""
    return {**METRICS, "published": Ref.to("published", name=PUBLISHED)}


def figure_of(job: Job[Spec], width: float, height: float) -> Figure:
    """Read and draw."""
    spec, (metrics, published) = job.spec, read_beside(job)
    return draw(metrics, published, spec.averaged, spec.backbones, spec.variants, width, height)


def points(
    metrics: pd.DataFrame, averaged: Sequence[EvaluationSet], backbones: Sequence[str], variants: Sequence[str]
) -> pd.DataFrame:
    """Return one row per backbone, variant and seed with both means over some sets.

    Columns backbone, method, variant, seed, r1, auroc_correct; method is `head`, or `class_entropy` with neither
    variant nor seed.

    metrics: rows as `tables.summary.read_metrics` gives them.
    """
    rows = on_sets(metrics, averaged)
    recall = rows[(rows["metric"] == "r1") & (rows["method"] == "representation")]
    auroc = rows[rows["metric"] == "auroc_correct"]
    is_head = (auroc["method"] == "head") & auroc["variant"].isin(variants)
    auroc = auroc[(is_head | (auroc["method"] == "class_entropy")) & auroc["backbone"].isin(backbones)]
    key = ["backbone", "method", "variant", "seed"]
    means = auroc.groupby(key, sort=False, dropna=False)["value"].mean().rename("auroc_correct").reset_index()
    return means.join(recall.groupby("backbone")["value"].mean().rename("r1"), on="backbone")[
        [*key, "r1", "auroc_correct"]
    ]


def published_points(published: pd.DataFrame | None, averaged: Sequence[EvaluationSet]) -> pd.DataFrame:
    """Return the printed points of Figure 4: columns backbone, variant, r1, auroc_correct; one row per seed.

    None where the paper's means are over other sets. A head that left its backbone as it was has the backbone's
    Recall@1, one that was trained jointly its own.

    published: rows of `workflow/published`, as `tables.summary.read_metrics` gives them.
    """
    import pandas as pd

    if published is None:
        return pd.DataFrame(columns=["backbone", "variant", "r1", "auroc_correct"])
    is_mean_of_ours = [sorted(parts(*pair)) == sorted(averaged) for pair in published[["dataset", "split"]].to_numpy()]
    published = published[pd.Series(is_mean_of_ours, index=published.index, dtype=bool)]
    of_seeds = published[published["seed"].notna() & (published["method"] == "head")]
    key = ["backbone", "variant", "seed", "dataset"]
    auroc = of_seeds[of_seeds["metric"] == "auroc_correct"].rename(columns={"value": "auroc_correct"})
    own = of_seeds[of_seeds["metric"] == "r1"].rename(columns={"value": "own"})
    is_shared = (published["method"] == "representation") & (published["metric"] == "r1")
    shared = published[is_shared].rename(columns={"value": "shared"})
    merged = auroc.merge(own[[*key, "own"]], on=key, how="left")
    merged = merged.merge(shared[["backbone", "dataset", "shared"]], on=["backbone", "dataset"], how="left")
    merged["r1"] = merged["own"].fillna(merged["shared"])
    return merged[["backbone", "variant", "r1", "auroc_correct"]].dropna().reset_index(drop=True)


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

    A horizontal dash is the R-AUROC of the backbone's class entropy. Where the sets are those of the paper's Figure 4,
    its points stand in grey behind, named by their models. width, height: inches.
    """
    import numpy as np

    table = points(metrics, averaged, backbones, variants)
    is_head = table["method"] == "head"
    label = names(averaged)
    find = Summary(metrics)
    images = int(np.nansum([find("r1", pair, backbones[0], "representation", statistic="n") for pair in averaged]))
    subtitle = (
        f"Each point is one head ({style.plural(table[is_head]['seed'].nunique(), 'seed')} per backbone"
        + (" and variant" if len(variants) > 1 else f", variant {style.shorten(variants[0])}")
        + f"), mean over {style.plural(len(averaged), 'downstream dataset')} ({style.plural(images, 'image')}): "
        + f"{style.listed(list(label.values()))}."
    )
    theirs = {
        f"{model(str(backbone))}{'' if variant == RECIPE else f', {variant}'.replace('_', ' ')}": rows
        for (backbone, variant), rows in published_points(published, averaged).groupby(["backbone", "variant"])
    }
    looks = {name: _PUBLISHED | {"marker": style.series(number).marker} for number, name in enumerate(theirs)}
    handles = _handles(backbones, variants, has_entropy=not is_head.all())
    handles += [style.handle(f"published: {name}", **look) for name, look in looks.items()]
    below = style.LINE_INCHES * len(handles)  # long names stand below each other
    figure, _ = style.new_figure(
        width, height, "Recall@1 and R-AUROC of each backbone", subtitle, 1, _LOWEST_INCHES, below
    )
    axes = figure.add_subplot()
    for name, rows in theirs.items():
        axes.plot(rows["r1"], rows["auroc_correct"], zorder=1, gid=f"published: {name}", **looks[name])
    for number, backbone in enumerate(backbones):
        look = style.series(number)
        mine = table[table["backbone"] == backbone]
        entropy = mine[mine["method"] == "class_entropy"]
        axes.plot(entropy["r1"], entropy["auroc_correct"], linestyle="", marker="_", markersize=13, color=look.colour)
        for position, variant in enumerate(variants):
            rows = mine[(mine["method"] == "head") & (mine["variant"] == variant)]
            shape = look.points | {"marker": style.series(position).marker}
            axes.plot(rows["r1"], rows["auroc_correct"], gid=f"{backbone}/{variant}", **shape)
    axes.margins(0.12)
    axes.set_xlabel("Recall@1")
    axes.set_ylabel("R-AUROC")
    axes.grid(**style.GRID)
    style.legend(figure, handles, width)
    return figure


def _handles(backbones: Sequence[str], variants: Sequence[str], has_entropy: bool) -> list[Artist]:
    handles: list[Artist] = [
        style.handle(style.shorten(backbone), **style.series(number).points | {"marker": "o"})
        for number, backbone in enumerate(backbones)
    ]
    if len(variants) > 1:
        for number, variant in enumerate(variants):
            marker = {"marker": style.series(number).marker, "color": style.GREY}
            handles.append(style.handle(style.shorten(variant), linestyle="", **marker))
    if has_entropy:
        dash = {"marker": "_", "markersize": 9, "color": "black"}
        handles.append(style.handle("classifier's entropy", linestyle="", **dash))
    return handles
