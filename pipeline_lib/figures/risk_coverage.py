"""Error of the nearest-neighbour search among the images that are kept, when the most uncertain are left out.

By the head, by the baselines, by the head and the 1-NN distance together, by a perfect order, and at random.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline_lib.figures import style
from pipeline_lib.tables.reading import read_sets
from pipeline_lib.tables.spec import HeadsSpec
from pipeline_lib.tables.summary import METHODS, EvaluationSet, names

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline_lib.config.config import Config
    from pipeline_lib.core.jobs import Job, Refs

CATEGORY, LABEL, PAPER = "Retrieval", "risk and coverage", ""
SIZE = (6.75, 4.0)
LOWEST_COVERAGE = 0.05
_COVERAGES = 191
_COLUMNS = 5
_ROW_INCHES = 1.25
_BAND: style.Look = {"color": style.series(0).colour, "alpha": 0.25, "linewidth": 0}
_LOOKS: dict[str, style.Look] = {
    "head": {"color": style.series(0).colour, "linewidth": 1.4},
    "class_entropy": {"color": style.series(1).colour, "linestyle": style.series(1).line, "linewidth": 1.1},
    "embedding_norm": {"color": style.series(2).colour, "linestyle": style.series(3).line, "linewidth": 1.1},
    "knn_distance": {"color": style.series(5).colour, "linestyle": style.series(4).line, "linewidth": 1.1},
    "combination": {"color": style.series(5).colour, "linestyle": "-", "linewidth": 1.4},
    "oracle": {"color": "black", "linestyle": style.series(2).line, "linewidth": 1.0},
    "random": {"color": style.GREY, "linestyle": "-", "linewidth": 0.8},
}


class Spec(HeadsSpec):
    """What is shown."""

    downstream: tuple[EvaluationSet, ...]


def inputs(config: Config) -> Refs:
    """Return what the figure is drawn from: `scores` and `baselines` of each set."""
    spec = Spec.of(config)
    return spec.per_image(spec.downstream)


def figure_of(job: Job[Spec], width: float, height: float) -> Figure:
    """Read and draw."""
    spec = job.spec
    heads = read_sets(job.all_inputs("scores"), spec.downstream, **spec.heads)
    selections = {}
    for pair, others in read_sets(job.all_inputs("baselines"), spec.downstream, backbone=spec.backbone).items():
        others["embedding_norm"] = -others["embedding_norm"]  # a small norm is uncertain
        selections[pair] = Selection(
            wrong=~others["correct"].to_numpy(),
            head={seed: heads[pair][f"uncertainty_seed{seed}"].to_numpy() for seed in spec.seeds},
            # A backbone without a classifier has no class entropy.
            baselines={name: others[name].to_numpy() for name in METHODS if name in others},
        )
    return draw(selections, spec.backbone, spec.variant, width, height)


@dataclass(frozen=True)
class Selection:
    """What is needed to refuse images of one set: who is wrong, and the uncertainties that are to tell.

    wrong: whether the nearest neighbour has another label, bool [n]. head: u by seed, float [n].
    baselines: u by method, some of `tables.summary.METHODS`, float [n].
    """

    wrong: np.ndarray
    head: Mapping[int, np.ndarray]
    baselines: Mapping[str, np.ndarray]


def coverages() -> np.ndarray:
    """Return the shares of images that are kept, float64 [191]."""
    import numpy as np

    return np.linspace(LOWEST_COVERAGE, 1.0, _COVERAGES)


def risks(uncertainty: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Return the risk at each of the `coverages`, float64 [191].

    Between two coverages of the curve the number of errors, not the risk, is linear: images that share a value of u
    are refused in random order.
    """
    import numpy as np

    from pipeline_lib.metrics.selective import risk_coverage_curve

    coverage, risk = risk_coverage_curve(uncertainty, wrong)
    return np.interp(coverages(), np.append(0.0, coverage), np.append(0.0, coverage * risk)) / coverages()


def oracle_risks(wrong: np.ndarray) -> np.ndarray:
    """Return the lowest risk possible at each of the `coverages` c, max(0, 1 - accuracy / c), float64 [191]."""
    return (1 - (1 - float(wrong.mean())) / coverages()).clip(min=0)


@style.styled
def draw(
    selections: Mapping[EvaluationSet, Selection], backbone: str, variant: str, width: float, height: float
) -> Figure:
    """Return one panel per set: 1-NN error of the images that are kept, over the share that is kept.

    The head's line is the seed with the (lower) median area, the band reaches from the lowest to the highest seed at
    each coverage. width, height: inches; the figure gets higher where many sets need more rows.
    """
    seeds = max(len(selection.head) for selection in selections.values())
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
    columns = style.columns_of(len(selections), _COLUMNS)
    rows = math.ceil(len(selections) / columns)
    figure, _ = style.new_figure(width, height, title, subtitle, rows, _ROW_INCHES, legend_inches=0.5)
    panels = style.small_multiples(figure, len(selections), columns, sharex=True)
    label = names(list(selections))
    for panel, (pair, selection) in zip(panels, selections.items(), strict=True):
        _panel(panel, selection)
        panel.set_title(f"{style.shorten(label[pair], 12)} ({len(selection.wrong):,})")
    for panel in panels[::columns]:
        panel.set_ylabel("risk")
    for panel in panels[-columns:]:
        panel.set_xlabel("coverage")
    style.legend(figure, _handles(seeds, next(iter(selections.values())).baselines), width)
    return figure


def _panel(axes: Axes, selection: Selection) -> None:
    import numpy as np

    from pipeline_lib.retrieval.signals import combine

    curves = np.array([risks(uncertainty, selection.wrong) for uncertainty in selection.head.values()])
    by_area = np.argsort(curves.mean(axis=1), kind="stable")
    chosen = by_area[(len(curves) - 1) // 2]
    typical, u = curves[chosen], list(selection.head.values())[chosen]
    others = dict(selection.baselines)
    if "knn_distance" in others:
        others["combination"] = combine(others["knn_distance"], u)
    axes.axhline(float(np.mean(selection.wrong)), **_LOOKS["random"])
    axes.plot(coverages(), oracle_risks(selection.wrong), gid="oracle", **_LOOKS["oracle"])
    for method, uncertainty in others.items():
        axes.plot(coverages(), risks(uncertainty, selection.wrong), gid=method, **_LOOKS[method])
    axes.fill_between(coverages(), curves.min(axis=0), curves.max(axis=0), **_BAND)
    axes.plot(coverages(), typical, gid="head", **_LOOKS["head"])
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    style.show_percent(axes.xaxis, axes.yaxis)
    axes.set_xticks([0, 0.5, 1])
    axes.locator_params(axis="y", nbins=4)
    axes.grid(color="0.9", linewidth=0.5)


def _handles(seeds: int, baselines: Iterable[str]) -> list[Artist]:
    label = {"head": f"head ({style.plural(seeds, 'seed')})"} | {name: METHODS[name] for name in baselines}
    label |= {"combination": METHODS["combination"]} if "knn_distance" in label else {}
    label |= {"oracle": "oracle", "random": "random"}
    return [style.handle(text, **_LOOKS[method]) for method, text in label.items()]
