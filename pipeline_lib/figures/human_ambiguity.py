"""Figure 7 of the paper: uncertainty of images on whose label all votes agree, and of those on which they do not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline_lib.figures import style
from pipeline_lib.figures.density import density, shown_range
from pipeline_lib.tables.reading import read_sets
from pipeline_lib.tables.spec import METRICS, HeadsSpec, SetsSpec
from pipeline_lib.tables.summary import EvaluationSet, Summary, names, read_metrics, typical_seed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline_lib.config.config import Config
    from pipeline_lib.core.jobs import Job, Refs

CATEGORY, LABEL, PAPER = "Human ambiguity", "uncertainty and human disagreement", "Figure 7"
SIZE = (6.75, 2.8)
_ROW_INCHES = 1.5
_BINS = 8
_FEW_VALUES = 10
_DIRAC = {"color": "0.45", "facecolor": "0.82"}
_AMBIGUOUS = style.series(2).colour
_DASHES: style.Look = {"linewidth": 0.8, "linestyle": (0, (2, 1.5))}


class Spec(SetsSpec, HeadsSpec):
    """What is shown."""


def wanted(config: Config) -> bool:
    """Return whether a config has the figure: one of its sets has votes."""
    return any(config.datasets[entry.dataset].has_votes for entry in config.evaluation_sets)


def inputs(config: Config) -> Refs:
    """Return what the figure is drawn from: `scores` and `baselines` of each set, the upstream one first."""
    spec = Spec.of(config)
    return {**METRICS, **spec.per_image(spec.sets)}


def figure_of(job: Job[Spec], width: float, height: float) -> Figure:
    """Read and draw."""
    spec, metrics = job.spec, read_metrics(job.input("metrics"))
    column = f"uncertainty_seed{typical_seed(metrics, spec.downstream, spec.backbone, spec.variant)}"
    heads = read_sets(job.all_inputs("scores"), spec.sets, **spec.heads)
    shown = {}
    for pair, votes in read_sets(job.all_inputs("baselines"), spec.sets, backbone=spec.backbone).items():
        if "vote_entropy" in votes and votes["vote_entropy"].notna().any():
            both = votes.merge(heads[pair], on="sample_id", validate="one_to_one")
            shown[pair] = (both[column].to_numpy(), both["vote_entropy"].to_numpy())
    return draw(metrics, shown, spec.backbone, spec.variant, len(spec.seeds), width, height)


def binned(vote_entropy: np.ndarray, uncertainty: np.ndarray) -> pd.DataFrame:
    """Return median entropy and the quartiles of u per bin of vote entropy: columns `entropy`, `q25`, `q50`, `q75`.

    Images with an entropy of 0 are a bin. The others form 8 bins of about equally many images, or one bin per value
    where there are at most 10 values (the same few votes for each image).

    vote_entropy, uncertainty: float [n], without NaN.
    """
    import numpy as np
    import pandas as pd

    ambiguous = vote_entropy[vote_entropy > 0]
    values = np.unique(np.round(ambiguous, 9))
    if len(values) <= _FEW_VALUES:
        edges = (values[1:] + values[:-1]) / 2
    else:
        edges = np.unique(np.quantile(ambiguous, np.arange(1, _BINS) / _BINS))
    bin_number = np.where(vote_entropy > 0, 1 + np.searchsorted(edges, vote_entropy, side="left"), 0)
    groups = pd.DataFrame({"entropy": vote_entropy, "u": uncertainty}).groupby(bin_number)
    quartiles = groups["u"].quantile(np.array([0.25, 0.5, 0.75])).unstack()
    quartiles.columns = ["q25", "q50", "q75"]
    return quartiles.assign(entropy=groups["entropy"].median())


@style.styled
def draw(
    metrics: pd.DataFrame,
    scores: Mapping[EvaluationSet, tuple[np.ndarray, np.ndarray]],
    backbone: str,
    variant: str,
    seeds: int,
    width: float,
    height: float,
) -> Figure:
    """Return two panels per dataset: densities of u for unanimous and ambiguous images, and u over vote entropy.

    In the first stands the metric `auroc_not_dirac`, median ± spread over seeds. Where all or no images are
    ambiguous there is nothing to compare, which the panel says.

    scores: per set with human votes u of one seed, float [n], and the vote entropy in nats, float [n] with NaN for
    images without votes. width, height: inches; the figure gets higher where many datasets need more rows.
    """
    import numpy as np

    title = f"Uncertainty and human disagreement: {style.shorten(backbone)}, variant {style.shorten(variant)}"
    if not scores:
        figure, _ = style.new_figure(width, min(height, 1.2), title, "No dataset of this run has human votes.")
        sentence = "Nothing to show: add a dataset whose images were labelled by several people (vote counts)."
        figure.text(0.5, 0.3, sentence, ha="center", va="center", wrap=True)
        return figure
    subtitle = (
        "Unanimous: all votes for one class (entropy 0); ambiguous: all others. n: images with votes. AUROC: of u for "
        "ambiguous images (0.5: chance)"
        + (f", median ± spread over {seeds} seeds" if seeds > 1 else ", 1 seed")
        + "; all else: the typical seed. Points: medians of bins of vote entropy; band: quartiles."
    )
    columns = 1 if len(scores) == 1 else 2
    rows = math.ceil(len(scores) / columns)
    figure, _ = style.new_figure(width, height, title, subtitle, rows, _ROW_INCHES, legend_inches=0.4)
    panels = style.small_multiples(figure, 2 * len(scores), 2 * columns)
    find, label = Summary(metrics), names(list(scores))
    for left, right, (pair, (uncertainty, vote_entropy)) in zip(panels[::2], panels[1::2], scores.items(), strict=True):
        voted = ~np.isnan(vote_entropy)
        auroc = find.median_and_spread("auroc_not_dirac", pair, backbone, variant)
        _densities(left, uncertainty[voted], vote_entropy[voted] > 0, auroc)
        _over_entropy(right, uncertainty[voted], vote_entropy[voted])
        left.set_title(f"{style.shorten(label[pair], 14)} (n = {int(voted.sum()):,})")
    style.legend(figure, _handles(), width)
    return figure


def _densities(axes: Axes, uncertainty: np.ndarray, is_ambiguous: np.ndarray, auroc: str) -> None:
    import numpy as np

    low, high = shown_range([uncertainty], 0.002)
    dirac, ambiguous = uncertainty[~is_ambiguous], uncertainty[is_ambiguous]
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    if len(dirac) == 0 or len(ambiguous) == 0:
        which = "ambiguous" if len(dirac) == 0 else "unanimous"
        axes.text(0.5, 0.5, f"all images are {which}:\nno AUROC", transform=axes.transAxes, ha="center", va="center")
        axes.set_xticks([])
        return
    for values, colour in ((dirac, _DIRAC["color"]), (ambiguous, _AMBIGUOUS)):
        position, height = density(values, low, high)
        if values is dirac:
            axes.fill_between(position, height, facecolor=_DIRAC["facecolor"], linewidth=0)
        axes.plot(position, height, color=colour, linewidth=1.1)
        axes.axvline(float(np.median(values)), ymax=0.8, color=colour, **_DASHES)
    axes.set_xlabel("uncertainty u")
    axes.set_xlim(low, high)
    axes.set_ylim(0, 1.25 * axes.get_ylim()[1])  # room for the AUROC above the densities and their medians
    axes.text(0.99, 0.99, f"AUROC {auroc}", transform=axes.transAxes, ha="right", va="top")
    axes.locator_params(axis="x", nbins=4)


def _over_entropy(axes: Axes, uncertainty: np.ndarray, vote_entropy: np.ndarray) -> None:
    bins = binned(vote_entropy, uncertainty)
    colour = style.series(2).colour
    if len(bins) == 1:
        lengths = [bins["q50"] - bins["q25"], bins["q75"] - bins["q50"]]
        axes.errorbar(bins["entropy"], bins["q50"], lengths, color=colour)
    axes.fill_between(bins["entropy"], bins["q25"], bins["q75"], color=colour, alpha=0.2, linewidth=0)
    axes.plot(bins["entropy"], bins["q50"], "o-", color=colour, markersize=3, linewidth=1.0, gid="medians")
    axes.set_xlabel("vote entropy (nats)")
    axes.set_ylabel("uncertainty u")
    axes.grid(color="0.9", linewidth=0.5)
    axes.locator_params(nbins=4)


def _handles() -> list[Artist]:
    from matplotlib.patches import Patch

    return [
        Patch(label="unanimous", facecolor=_DIRAC["facecolor"], edgecolor=_DIRAC["color"]),
        style.handle("ambiguous", linewidth=1.1, color=_AMBIGUOUS),
        style.handle("median", color="0.25", **_DASHES),
    ]
