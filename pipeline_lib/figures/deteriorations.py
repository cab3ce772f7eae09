"""Figure 6 of the paper: uncertainty of unseen images that are blurred, covered by a grey box, cropped, and made noisy.

At five severities each; medians, and the share of images whose uncertainty rises from one severity to the next.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline_lib.config.deteriorations import KINDS
from pipeline_lib.figures import style
from pipeline_lib.figures.density import density, shown_range
from pipeline_lib.tables.reading import read_sets
from pipeline_lib.tables.spec import METRICS, HeadsSpec, refs
from pipeline_lib.tables.summary import EvaluationSet, names, read_metrics, typical_seed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline_lib.config.config import Config
    from pipeline_lib.core.jobs import Job, Refs

CATEGORY, LABEL, PAPER = "Deterioration", "uncertainty of deteriorated images", "Figure 6"
SIZE = (6.75, 3.2)
CLEAN = ("clean", 0)
_SEVERITIES = range(1, 6)
_HALF_WIDTH = 0.42
_COLUMNS = 4
_ROW_INCHES = 1.6


class Spec(HeadsSpec):
    """What is shown."""

    downstream: tuple[EvaluationSet, ...]
    deteriorated: tuple[EvaluationSet, ...]


def wanted(config: Config) -> bool:
    """Return whether a config has the figure."""
    return bool(config.evaluation.deteriorated)


def inputs(config: Config) -> Refs:
    """Return what the figure is drawn from: `scores` and `deteriorations` of each set."""
    spec = Spec.of(config)
    return {
        **METRICS,
        "scores": refs("evaluate_heads", spec.deteriorated, **spec.heads),
        "deteriorations": refs("deteriorations", spec.deteriorated, **spec.heads),
    }


def figure_of(job: Job[Spec], width: float, height: float) -> Figure:
    """Read and draw."""
    import pandas as pd

    spec = job.spec
    seed = typical_seed(read_metrics(job.input("metrics")), spec.downstream, **spec.heads)
    clean, others = (
        pd.concat(read_sets(job.all_inputs(name), spec.deteriorated, **spec.heads), names=["dataset", "split"])
        for name in ("scores", "deteriorations")
    )
    pooled = clean.merge(others, on=["dataset", "split", "sample_id"], validate="one_to_one")
    uncertainty = {CLEAN: pooled[f"uncertainty_seed{seed}"].to_numpy()}
    for kind, severity in itertools.product(KINDS, _SEVERITIES):
        uncertainty[kind, severity] = pooled[f"{kind}_{severity}_seed{seed}"].to_numpy()
    rising = shares_rising(pd.concat([read_metrics(path) for path in job.all_inputs("deteriorations")]))
    return draw(uncertainty, rising, spec.deteriorated, **spec.heads, seeds=len(spec.seeds), width=width, height=height)


def shares_rising(metrics: pd.DataFrame) -> dict[str, float]:
    """Return each metric `rises_<kind>_<severity>` for the images of all sets together, median over seeds.

    metrics: the rows of one variant, any sets. A set weighs as much as it has images, so that the share of each seed
    is that of the pooled images.
    """
    rises = metrics[metrics["metric"].str.startswith("rises_")]
    rises = rises.assign(rising=rises["value"] * rises["n"])
    pooled = rises.groupby(["metric", "seed"])[["rising", "n"]].sum()
    shares = (pooled["rising"] / pooled["n"]).groupby("metric").median()
    return {str(metric): float(share) for metric, share in shares.items()}


@style.styled
def draw(
    uncertainty: Mapping[tuple[str, int], np.ndarray],
    rising: Mapping[str, float],
    sets: Sequence[EvaluationSet],
    backbone: str,
    variant: str,
    seeds: int,
    width: float,
    height: float,
) -> Figure:
    """Return one panel per kind of deterioration: the densities of u from clean images to the highest severity.

    The line joins the medians, the thick bars reach from the first to the third quartile.

    uncertainty: u of one seed by kind and severity, and of the clean images (`CLEAN`), float [n] of the pooled sets.
    rising: share of images whose u rises at a step, by metric (`shares_rising`). width, height: inches; the figure
    gets higher where many kinds need more rows.
    """
    title = f"Uncertainty of deteriorated images: {style.shorten(backbone)}, variant {style.shorten(variant)}"
    subtitle = (
        f"{style.plural(len(uncertainty[CLEAN]), 'image')} of {style.listed(list(names(sets).values()))}. Densities of "
        f"u (the typical one of {style.plural(seeds, 'seed')}); bars: quartiles; line: medians. Numbers: share of "
        "images in % whose u is larger than one step before" + (", median over seeds." if seeds > 1 else ".")
    )
    kinds = list(dict.fromkeys(kind for kind, _ in uncertainty if kind != CLEAN[0]))
    columns = style.columns_of(len(kinds), _COLUMNS)
    rows = math.ceil(len(kinds) / columns)
    figure, _ = style.new_figure(width, height, title, subtitle, rows, _ROW_INCHES)
    panels = style.small_multiples(figure, len(kinds), columns, sharey=True)
    low, high = shown_range(uncertainty.values(), 0.002)
    for panel, kind in zip(panels, kinds, strict=True):
        _panel(panel, uncertainty, rising, kind, low, high)
        panel.set_ylim(low, high)
    for panel in panels[::columns]:
        panel.set_ylabel("uncertainty u")
    for panel in panels[-columns:]:
        panel.set_xlabel("severity (0: clean)")
    return figure


def _panel(
    axes: Axes,
    uncertainty: Mapping[tuple[str, int], np.ndarray],
    rising: Mapping[str, float],
    kind: str,
    low: float,
    high: float,
) -> None:
    import numpy as np

    severities = sorted(severity for other, severity in uncertainty if other == kind)
    steps = [uncertainty[CLEAN], *(uncertainty[kind, severity] for severity in severities)]
    for x, values in enumerate(steps):
        position, height = density(values, low, high)
        half = _HALF_WIDTH * height / height.max()
        face = "0.82" if x == 0 else "#A9C4E2"
        axes.fill_betweenx(position, x - half, x + half, facecolor=face, edgecolor="0.35", linewidth=0.5)
        axes.vlines(x, *np.quantile(values, [0.25, 0.75]), color="0.25", linewidth=2.0)
    medians = [float(np.median(values)) for values in steps]
    line: style.Look = {"color": style.series(0).colour, "markersize": 3, "markerfacecolor": "white", "linewidth": 0.8}
    axes.plot(range(len(steps)), medians, "o-", gid=kind, **line)
    above: style.Look = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
    for severity in severities:
        share = rising.get(f"rises_{kind}_{severity}", math.nan)
        axes.text(severity, 1.01, "–" if math.isnan(share) else f"{100 * share:.0f}", **above)
    axes.text(0, 1.01, "%:", **above)
    axes.set_title(style.shorten(kind, 22), pad=14)
    axes.set_xticks(range(len(steps)))
    axes.set_xlim(-0.6, len(steps) - 0.4)
    axes.grid(axis="y", color="0.9", linewidth=0.5)
