"""Figure 3 of the paper: do classifier and uncertainty head harm each other when they are trained together?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pipeline_lib.plots import style

# In the order of the paper: first the conflict, then its solution.
MODES = {False: "(a) without stop-gradient", True: "(b) with stop-gradient"}
ACCURACY = {"top1": "top-1 accuracy"}
UNCERTAINTY = {"auroc_classification": "AUROC (classification)", "auroc_correct": "R-AUROC (1-NN)"}
_LOSSES = {"squared_error": "squared-error loss", "order": "order loss"}


@style.styled
def draw(
    curves: Mapping[tuple[bool, int], pd.DataFrame],
    backbone: str,
    dataset: str,
    eval_images: int,
    loss: str,
    loss_weight: float,
    width: float,
    height: float,
) -> Figure:
    """Return accuracy (above) and quality of u (below) by epoch, without and with stop-gradient (left and right).

    Lines are medians over seeds, bands reach from the smallest to the largest seed; epoch 0 is the pretrained backbone
    with a fresh head, and the dots continue its accuracy.

    curves: by stop-gradient and seed, one row per epoch with `epoch`, `top1`, `auroc_classification`,
    `auroc_correct` (NaN where undefined). eval_images: images behind each value. loss: `squared_error` or `order`.
    loss_weight: lambda. width, height: inches.
    """
    seeds = len({seed for _, seed in curves})
    subtitle = (
        f"Unfrozen {style.shorten(backbone)}, trained on {style.shorten(dataset)}; task loss + λ · {_LOSSES[loss]}, "
        f"λ = {loss_weight:g}; {style.plural(eval_images, 'held-out image')}, {style.plural(seeds, 'seed')}"
        + (" (line: median, band: smallest to largest)." if seeds > 1 else ".")
        + " Epoch 0: pretrained, fresh head. Higher is better; AUROC 0.5: chance."
    )
    figure, _ = style.new_figure(width, height, "Classifier and uncertainty head trained together", subtitle)
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    for column, (stop_gradient, title) in enumerate(MODES.items()):
        mine = [curve for key, curve in sorted(curves.items()) if key[0] == stop_gradient]
        above, below = panels[:, column]
        above.set_title(title)
        for place, quantity in enumerate([*ACCURACY, *UNCERTAINTY]):
            _curve(above if quantity in ACCURACY else below, mine, quantity, place)
        above.axhline(_by_epoch(mine, "top1").median(axis=1).iloc[0], color="0.3", linewidth=0.8, linestyle=(0, (1, 2)))
        below.set_xlabel("epoch")
    panels[0, 0].set_ylabel("accuracy")
    panels[1, 0].set_ylabel("AUROC of u")
    for panel in panels.ravel():
        panel.grid(color="0.88", linewidth=0.5)
        panel.margins(x=0.03)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        panel.yaxis.set_major_locator(MaxNLocator(nbins=5))
    figure.align_ylabels()
    style.legend(figure, _handles(), width)
    return figure


def _curve(axes: Axes, curves: Sequence[pd.DataFrame], quantity: str, place: int) -> None:
    values = _by_epoch(curves, quantity)
    look = style.series(place)
    median = values.median(axis=1)
    if values.shape[1] > 1:
        axes.fill_between(
            values.index, values.min(axis=1), values.max(axis=1), color=look.colour, alpha=0.22, linewidth=0
        )
    axes.plot(
        median.index,
        median,
        color=look.colour,
        linestyle=look.line,
        marker=look.marker,
        fillstyle=look.fill,
        markersize=3.5,
        gid=quantity,
    )


def _by_epoch(curves: Sequence[pd.DataFrame], quantity: str) -> pd.DataFrame:
    """Return one column per seed, by epoch."""
    return pd.concat([curve.set_index("epoch")[quantity].astype(float) for curve in curves], axis=1)


def _handles() -> list[Artist]:
    handles: list[Artist] = []
    for place, label in enumerate([*ACCURACY.values(), *UNCERTAINTY.values()]):
        look = style.series(place)
        shape = {"linestyle": look.line, "marker": look.marker, "fillstyle": look.fill, "markersize": 3.5}
        handles.append(Line2D([], [], color=look.colour, label=label, **shape))
    handles.append(Line2D([], [], color="0.3", linewidth=0.8, linestyle=(0, (1, 2)), label="accuracy at epoch 0"))
    return handles
