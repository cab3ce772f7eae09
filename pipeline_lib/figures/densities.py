"""Distribution of the uncertainty u on each unseen dataset (line) over that on held-out upstream images (grey).

Dashes are medians. Shown is one seed: the one whose mean AUROC is the median of all seeds. Densities are histograms
smoothed with a Gaussian of Silverman's bandwidth; each row has its own vertical scale. Beside each row stands the AUROC
of u for "this image is from the unseen dataset", median over seeds. Values near 0.5 say that unseen images are not more
uncertain merely because they are unseen. In the form of Figure 8 of the paper.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline_lib.figures import style
from pipeline_lib.figures.density import density, shown_range
from pipeline_lib.tables.reading import read_sets
from pipeline_lib.tables.spec import METRICS, SetsSpec, refs
from pipeline_lib.tables.summary import EvaluationSet, Summary, names, read_metrics, typical_seed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline_lib.config.config import Config
    from pipeline_lib.core.jobs import Job, Refs

CATEGORY, LABEL, PAPER = "Zero-shot", "uncertainty upstream and downstream", "Figure 8"
SIZE = (6.75, 3.4)
_RIDGE = 0.85  # height of the highest density in units of the distance between two rows


class Spec(SetsSpec):
    """What is shown: the first variant on every backbone."""

    backbones: tuple[str, ...]
    variant: str


def inputs(config: Config) -> Refs:
    """Return what the figure is drawn from: `scores` of each set on the first backbone, then on the next."""
    spec = Spec.of(config)
    scores = [refs("evaluate_heads", spec.sets, backbone=name, variant=spec.variant) for name in spec.backbones]
    return {**METRICS, "scores": [*itertools.chain(*scores)]}


def figure_of(job: Job[Spec], width: float, height: float) -> Figure:
    """Read and draw."""
    spec, folders = job.spec, iter(job.all_inputs("scores"))
    metrics = read_metrics(job.input("metrics"))
    scores = {}
    for backbone in spec.backbones:
        column = f"uncertainty_seed{typical_seed(metrics, spec.downstream, backbone, spec.variant)}"
        of_backbone = itertools.islice(folders, len(spec.sets))
        for pair, table in read_sets(of_backbone, spec.sets, backbone=backbone, variant=spec.variant).items():
            scores[backbone, pair] = table[column].to_numpy()
    return draw(metrics, scores, spec.upstream, spec.downstream, spec.backbones, spec.variant, width, height)


@style.styled
def draw(
    metrics: pd.DataFrame,
    scores: Mapping[tuple[str, EvaluationSet], np.ndarray],
    upstream: EvaluationSet,
    downstream: Sequence[EvaluationSet],
    backbones: Sequence[str],
    variant: str,
    width: float,
    height: float,
) -> Figure:
    """Return the figure: one panel per backbone and in it one row per downstream set.

    metrics: rows as `tables.summary.read_metrics` gives them, for the AUROC. scores: u of one seed (`typical_seed`) per
    backbone and set, float [n]. width, height: inches.
    """
    find = Summary(metrics)
    found = [find("auroc_ood", row, backbone, "head", variant, "seeds") for row in downstream for backbone in backbones]
    seeds = int(max((number for number in found if not math.isnan(number)), default=0))
    title = f"Uncertainty on unseen datasets and on the training dataset, variant {style.shorten(variant)}"
    n = len(scores[backbones[0], upstream])
    subtitle = (
        f"Grey: {style.plural(n, 'held-out image')} of {style.shorten(upstream.dataset)} (upstream); line: downstream "
        "dataset (n images); dashes: medians. u of the seed with the median AUROC. Right: AUROC of u for downstream "
        "against upstream images (0.5: alike), median"
        + (" ± spread" if seeds > 1 else "")
        + f" over {style.plural(seeds, 'seed')}."
    )
    figure, _ = style.new_figure(width, height, title, subtitle)
    columns = style.columns_of(len(backbones), 4)
    panels = style.small_multiples(figure, len(backbones), columns, sharey=True)
    label = names([upstream, *downstream])
    for panel, backbone in zip(panels, backbones, strict=True):
        _panel(panel, scores[backbone, upstream], [scores[backbone, pair] for pair in downstream])
        panel.set_title(style.shorten(backbone, 22 if columns < 4 else 16))
        panel.set_xlabel("uncertainty u")
        for row, pair in enumerate(downstream):
            text = find.median_and_spread("auroc_ood", pair, backbone, variant)
            panel.text(1.02, -row, text, transform=panel.get_yaxis_transform(), va="bottom", ha="left")
    panels[0].set_ylim(-len(downstream) + 0.9, 1.0)
    panels[0].set_yticks(
        [-row for row in range(len(downstream))],
        [f"{style.shorten(label[pair], 22)} ({len(scores[backbones[0], pair]):,})" for pair in downstream],
        va="bottom",
    )
    for panel in panels:
        panel.tick_params(axis="y", length=0)
    return figure


def _panel(axes: Axes, upstream: np.ndarray, downstream: Sequence[np.ndarray]) -> None:
    import numpy as np

    low, high = shown_range([upstream, *downstream], 0.005)
    position, reference = density(upstream, low, high)
    colour = style.series(0).colour
    for row, uncertainty in enumerate(downstream):
        _, curve = density(uncertainty, low, high)
        # Each row has its own scale: a narrow density must not flatten all others.
        scale = _RIDGE / max(float(reference.max()), float(curve.max()))
        axes.fill_between(position, -row, -row + scale * reference, color="0.78", linewidth=0)
        axes.plot(position, -row + scale * curve, color=colour, linewidth=1.0)
        for values, shade in ((upstream, "0.4"), (uncertainty, colour)):
            axes.vlines(np.median(values), -row, -row + 0.8, color=shade, linewidth=0.8, linestyle=(0, (2, 1.5)))
        axes.axhline(-row, color="0.6", linewidth=0.5)
    axes.set_xlim(low, high)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=4)
