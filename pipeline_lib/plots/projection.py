"""Figure 9 of the paper: t-SNE and UMAP maps in which uncertain images are larger and more transparent."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline_lib.plots import style

_MAPS = {"tsne": "t-SNE", "umap": "UMAP"}
_LARGEST_POINTS = 8.0
_SMALLEST_POINTS = 2.2
_LAYERS = 10


def rank_share(uncertainty: np.ndarray) -> np.ndarray:
    """Return each image's rank of u among those shown, from 0 (lowest) to 1 (highest); equal u have equal ranks.

    uncertainty: float [n]. Returns float64 [n].
    """
    rank = pd.Series(uncertainty).rank(method="average").to_numpy()
    return (rank - 1) / max(1, len(rank) - 1)


def size_points(share: np.ndarray) -> np.ndarray:
    """Return marker diameters in points, growing linearly with the rank of u. share: float [n], 0 to 1."""
    return _SMALLEST_POINTS + (_LARGEST_POINTS - _SMALLEST_POINTS) * share


def opacity(share: np.ndarray) -> np.ndarray:
    """Return marker opacities, falling linearly from 0.95 to 0.15 with the rank of u. share: float [n], 0 to 1."""
    return 0.95 - 0.8 * share


@style.styled
def draw(
    coordinates: pd.DataFrame,
    uncertainty: np.ndarray,
    dataset: str,
    backbone: str,
    variant: str,
    seeds: int,
    width: float,
    height: float,
) -> Figure:
    """Return both maps side by side; colour and marker tell the class, size and opacity the rank of u.

    The most uncertain images are at the bottom, so that none hides a certain one.

    coordinates: rows of `coordinates.parquet`. uncertainty: u of the same rows, of one seed, float [n].
    width, height: inches.
    """
    counts = coordinates["class_name"].value_counts()
    classes = list(dict.fromkeys(coordinates.sort_values("label")["class_name"]))
    title = f"Uncertainty on maps of {style.shorten(dataset)}"
    subtitle = (
        f"{style.plural(len(coordinates), 'image')} of {len(classes)} class{'es' if len(classes) > 1 else ''} (n in "
        "brackets); "
        f"{style.shorten(backbone)}, variant {style.shorten(variant)}, the typical one of "
        f"{style.plural(seeds, 'seed')}. Size and transparency grow with the rank of u among the images shown. "
        "Close by: alike to the backbone; axes have no unit."
    )
    figure, _ = style.new_figure(width, height, title, subtitle)
    share = rank_share(uncertainty)
    for panel, (name, text) in zip(figure.subplots(1, 2), _MAPS.items(), strict=True):
        panel.set_title(text)
        _map(panel, coordinates, share, classes, name)
    style.legend(figure, _handles(classes, counts, uncertainty), width)
    return figure


def _map(axes: Axes, coordinates: pd.DataFrame, share: np.ndarray, classes: list[str], name: str) -> None:
    place = {each: number for number, each in enumerate(classes)}
    class_number = coordinates["class_name"].map(place).to_numpy()
    x, y = (coordinates[f"{name}_{axis}"].to_numpy() for axis in "xy")
    # A scatter has one marker: neighbours in rank share a call, so that all classes are layered by u together.
    for layer in np.array_split(np.argsort(-share, kind="stable"), min(_LAYERS, len(share))):
        for number in np.unique(class_number[layer]):
            rows = layer[class_number[layer] == number]
            look = style.series(int(number))
            faces = np.tile(to_rgba(look.colour), (len(rows), 1))
            faces[:, 3] = opacity(share[rows])
            edges = faces.copy()
            edges[:, 3] = 0.6 + 0.4 * faces[:, 3]  # an outline, or the most uncertain ones could not be seen
            axes.scatter(
                x[rows],
                y[rows],
                s=size_points(share[rows]) ** 2,
                marker=look.marker,
                facecolors=faces,
                edgecolors=edges,
                linewidths=0.3,
                gid=classes[number],
            )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("0.75")
    axes.margins(0.04)


def _handles(classes: list[str], counts: pd.Series, uncertainty: np.ndarray) -> list[Artist]:
    handles: list[Artist] = []
    for number, name in enumerate(classes):
        look = style.series(number)
        label = f"{style.shorten(name, 18)} ({counts[name]:,})"
        handles.append(Line2D([], [], linestyle="", marker=look.marker, color=look.colour, label=label))
    for share, name in ((0.0, "lowest"), (0.5, "median"), (1.0, "highest")):
        value = float(np.quantile(uncertainty, share))
        handles.append(
            Line2D(
                [],
                [],
                linestyle="",
                marker="o",
                markersize=float(size_points(np.float64(share))),
                markerfacecolor=to_rgba("black", float(opacity(np.float64(share)))),
                markeredgecolor="black",
                markeredgewidth=0.3,
                label=f"{name} u: {value:.3g}",
            )
        )
    return handles
