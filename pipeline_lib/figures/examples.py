"""The images with the lowest uncertainty (left, lowest first) and with the highest (right, highest last).

Of each dataset, with their u, the mean over seeds. They are the extremes, not a choice. In the form of Figure 5 of the
paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline_lib.figures import style
from pipeline_lib.tables.reading import mean_uncertainty, read_sets
from pipeline_lib.tables.spec import HeadsSpec, SetsSpec, datasets_of, refs
from pipeline_lib.tables.summary import names

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from pipeline_lib.config.config import Config
    from pipeline_lib.core.jobs import Job, Refs
    from pipeline_lib.datasets.images import ImageDataset

CATEGORY, LABEL, PAPER = "Zero-shot", "least and most uncertain images", "Figure 5"
SIZE = (6.75, 7.5)
_IMAGES_A_SIDE = 6
_GAP_INCHES = 0.05
_MIDDLE_INCHES = 0.2
_NAME_INCHES = 1.3
_LINE_INCHES = 1.5 * style.TEXT_SIZE / 72
_LARGEST_PIXELS = 256


class Spec(SetsSpec, HeadsSpec):
    """What is shown."""


def inputs(config: Config) -> Refs:
    """Return what the figure is drawn from: `datasets` and `scores` of each set, the upstream one first."""
    spec = Spec.of(config)
    return {"datasets": datasets_of(spec.sets), "scores": refs("evaluate_heads", spec.sets, **spec.heads)}


def plugins(config: Config) -> list[str]:
    """Return the components that decode the images."""
    return sorted({f"datasets.{config.datasets[pair.dataset].kind}" for pair in Spec.of(config).sets})


def figure_of(job: Job[Spec], width: float, height: float) -> Figure:
    """Read and draw."""
    from pipeline_lib.datasets.images import ImageDataset

    spec, label = job.spec, names(job.spec.sets)
    scores = read_sets(job.all_inputs("scores"), spec.sets, **spec.heads)
    shown = [
        extremes(scores[pair], ImageDataset(folder, pair.split), label[pair], _IMAGES_A_SIDE)
        for pair, folder in zip(spec.sets, job.all_inputs("datasets"), strict=True)
    ]
    return draw(shown, spec.backbone, spec.variant, len(spec.seeds), width, height)


@dataclass(frozen=True)
class Extremes:
    """Images of one dataset with the lowest u (the very lowest first) and the highest u (the very highest last)."""

    dataset: str
    n: int
    lowest: list[tuple[Image, float]]
    highest: list[tuple[Image, float]]


def extremes(scores: pd.DataFrame, images: ImageDataset, name: str, count: int) -> Extremes:
    """Decode the `count` least and most uncertain images of a dataset; half of the images at most on each side.

    u is the mean over the `uncertainty_seed<k>` columns; equal ones come in the order of their rows.

    scores: per-sample scores with a column `sample_id`. images: the same split, any order.
    """
    import numpy as np
    import pandas as pd

    uncertainty = mean_uncertainty(scores)
    order = np.argsort(uncertainty, kind="stable")
    count = min(count, len(order) // 2)
    position = pd.Index(images.sample_id).get_indexer(scores["sample_id"])

    def decode(rows: np.ndarray) -> list[tuple[Image, float]]:
        return [(images.image(int(position[row])), float(uncertainty[row])) for row in rows]

    return Extremes(name, len(order), decode(order[:count]), decode(order[len(order) - count :]))


def draw(examples: Sequence[Extremes], backbone: str, variant: str, seeds: int, width: float, height: float) -> Figure:
    """Return the image grid: one row per dataset, certain images to the left and uncertain ones to the right."""
    title = "Images with the lowest and the highest uncertainty"
    subtitle = f"{about(backbone, variant, seeds)}; n: images of the dataset."
    return grid(examples, title, subtitle, ("lowest u", "highest u"), width, height)


def about(backbone: str, variant: str, seeds: int) -> str:
    """Return the beginning of a subtitle of `grid`."""
    of_seeds = "1 seed" if seeds == 1 else f"mean over {seeds} seeds"
    shown = f"{style.shorten(backbone)}, variant {style.shorten(variant)}"
    return f"{shown}; below each image its uncertainty u, {of_seeds}"


@style.styled
def grid(
    examples: Sequence[Extremes],
    title: str,
    subtitle: str,
    sides: tuple[str, str],
    width: float,
    height: float,
    aspect: float = 1.0,
) -> Figure:
    """Return one row per dataset, its lowest images to the left and its highest to the right, below headings.

    Below each image stands its u. Cells are `aspect` times as wide as high, as large as `width` and `height` (inches)
    allow; the figure gets lower where few datasets leave room.
    """
    columns = max(1, *(max(len(row.lowest), len(row.highest)) for row in examples))
    below_title = style.new_figure(width, height, title, subtitle)[1]
    heading = height - below_title + _LINE_INCHES
    by_width = (width - _NAME_INCHES - _MIDDLE_INCHES) / (2 * columns) - _GAP_INCHES
    by_height = (height - heading) / len(examples) - _LINE_INCHES - _GAP_INCHES
    side = max(0.1, min(by_width, by_height * aspect))
    cell_inches = side / aspect
    row_inches = cell_inches + _LINE_INCHES + _GAP_INCHES
    height = min(height, heading + row_inches * len(examples))
    figure, _ = style.new_figure(width, height, title, subtitle)
    figure.set_layout_engine("none")
    starts = (_NAME_INCHES, _NAME_INCHES + columns * (side + _GAP_INCHES) + _MIDDLE_INCHES)
    for start, text in zip(starts, sides, strict=True):
        figure.text(start / width, 1 - (heading - 0.04) / height, text, fontweight="bold", va="bottom")
    for number, row in enumerate(examples):
        bottom = height - heading - number * row_inches - cell_inches
        name = f"{style.shorten(row.dataset, 20)}\nn = {row.n:,}"
        figure.text(0.06 / width, (bottom + cell_inches / 2) / height, name, va="center")
        for start, cells in zip(starts, (row.lowest, row.highest), strict=True):
            if not cells:
                figure.text(start / width, (bottom + cell_inches / 2) / height, "none", va="center")
            for column, (image, uncertainty) in enumerate(cells):
                left = start + column * (side + _GAP_INCHES)
                axes = style.add_picture(figure, _small(image), left, bottom + side, side)
                axes.set_xlabel(_short(uncertainty, side), labelpad=1.5)
    return figure


def _small(image: Image) -> np.ndarray:
    """Return an image as an RGB array with at most `_LARGEST_PIXELS` a side, so that the PDF stays small."""
    import numpy as np

    image = image.convert("RGB")
    image.thumbnail((_LARGEST_PIXELS, _LARGEST_PIXELS))
    return np.asarray(image)


def _short(uncertainty: float, side: float) -> str:
    """Return u with as many digits as fit below a cell of `side` inches."""
    return f"{uncertainty:#.{3 if side > 0.4 else 2}g}".rstrip(".")
