"""Figure 9 of the paper: representations of one unseen dataset in the plane, by t-SNE and UMAP.

Large, transparent points are uncertain; they are expected at the borders of the classes and among other classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.core.artefacts import file_of
from pipeline_lib.figures import style
from pipeline_lib.tables.spec import METRICS, HeadsSpec, refs
from pipeline_lib.tables.summary import EvaluationSet, read_metrics, typical_seed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline_lib.config.config import Config
    from pipeline_lib.core.jobs import Job, Refs

CATEGORY, LABEL, PAPER = "Zero-shot", "t-SNE and UMAP with uncertainty", "Figure 9"
SIZE = (6.75, 4.0)
_MAPS = {"tsne": "t-SNE", "umap": "UMAP"}
_LARGEST_POINTS = 8.0
_SMALLEST_POINTS = 2.2
_LAYERS = 10


class Spec(HeadsSpec):
    """What is shown."""

    downstream: tuple[EvaluationSet, ...]
    projected: EvaluationSet


def inputs(config: Config) -> Refs:
    """Return what the figure is drawn from."""
    spec = Spec.of(config)
    return {
        **METRICS,
        "projection": refs("projection", [spec.projected], backbone=spec.backbone),
        "scores": refs("evaluate_heads", [spec.projected], **spec.heads),
    }


def figure_of(job: Job[Spec], width: float, height: float) -> Figure:
    """Read and draw."""
    import pandas as pd

    spec = job.spec
    seed = typical_seed(read_metrics(job.input("metrics")), spec.downstream, spec.backbone, spec.variant)
    expected = {"backbone": spec.backbone, **spec.projected._asdict()}
    coordinates = pd.read_parquet(file_of(job.input("projection"), "coordinates.parquet", **expected))
    scores = pd.read_parquet(file_of(job.input("scores"), "scores.parquet", variant=spec.variant, **expected))
    both = coordinates.merge(scores, on="sample_id", validate="one_to_one")
    uncertainty = both[f"uncertainty_seed{seed}"].to_numpy()
    seeds = len(spec.seeds)
    return draw(both, uncertainty, spec.projected.dataset, spec.backbone, spec.variant, seeds, width, height)


def rank_share(uncertainty: np.ndarray) -> np.ndarray:
    """Return each image's rank of u among those shown, from 0 (lowest) to 1 (highest); equal u have equal ranks.

    uncertainty: float [n]. Returns float64 [n].
    """
    import pandas as pd

    rank = pd.Series(uncertainty).rank(method="average").to_numpy()
    return (rank - 1) / max(1, len(rank) - 1)


def size_points(share: np.ndarray | float) -> np.ndarray | float:
    """Return marker diameters in points, growing linearly with the rank of u. share: float [n], 0 to 1."""
    return _SMALLEST_POINTS + (_LARGEST_POINTS - _SMALLEST_POINTS) * share


def opacity(share: np.ndarray | float) -> np.ndarray | float:
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
    counts = coordinates["class_name"].value_counts()
    style.legend(figure, _handles({name: int(counts[name]) for name in classes}, uncertainty), width)
    return figure


def _map(axes: Axes, coordinates: pd.DataFrame, share: np.ndarray, classes: list[str], name: str) -> None:
    import numpy as np
    import pandas as pd
    from matplotlib.colors import to_rgba

    class_number = pd.Index(classes).get_indexer(pd.Index(coordinates["class_name"]))
    x, y = (coordinates[f"{name}_{axis}"].to_numpy() for axis in "xy")
    # A scatter has one marker: neighbours in rank share a call, so that all classes are layered by u together.
    for layer in np.array_split(np.argsort(-share, kind="stable"), min(_LAYERS, len(share))):
        for number in np.unique(class_number[layer]).tolist():
            rows = layer[class_number[layer] == number]
            look = style.series(number)
            faces = np.tile(to_rgba(look.colour), (len(rows), 1))
            faces[:, 3] = opacity(share[rows])
            edges = faces.copy()
            edges[:, 3] = 0.6 + 0.4 * faces[:, 3]  # an outline, or the most uncertain ones could not be seen
            colours: style.Look = {"facecolors": faces, "edgecolors": edges}
            size = size_points(share[rows]) ** 2
            axes.scatter(x[rows], y[rows], s=size, marker=look.marker, linewidths=0.3, gid=classes[number], **colours)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("0.75")
    axes.margins(0.04)


def _handles(counts: dict[str, int], uncertainty: np.ndarray) -> list[Artist]:
    import numpy as np
    from matplotlib.colors import to_rgba

    handles: list[Artist] = []
    for number, (name, count) in enumerate(counts.items()):
        look = style.series(number)
        label = f"{style.shorten(name, 18)} ({count:,})"
        handles.append(style.handle(label, linestyle="", marker=look.marker, color=look.colour))
    for share, name in ((0.0, "lowest"), (0.5, "median"), (1.0, "highest")):
        handles.append(
            style.handle(
                f"{name} u: {np.quantile(uncertainty, share):.3g}",
                linestyle="",
                marker="o",
                markersize=size_points(share),
                markerfacecolor=to_rgba("black", float(opacity(share))),
                markeredgecolor="black",
                markeredgewidth=0.3,
            )
        )
    return handles
