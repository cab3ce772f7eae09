"""A contact sheet: random images of each split, as they are, with their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from pipeline_lib.datasets.base import UnreadableImageError
from pipeline_lib.datasets.pixels import generator
from pipeline_lib.figures import style

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipeline_lib.datasets.images import ImageDataset

_GAP_INCHES = 0.05
_LINE_INCHES = 1.5 * style.TEXT_SIZE / 72
_LARGEST_PIXELS = 256
_LARGEST_INCHES = 1.2
_SPARE = 50


@dataclass(frozen=True)
class Row:
    """Some images of one split, each with the name of its class; n: images of the split."""

    dataset: str
    split: str
    n: int
    pictures: list[tuple[Image, str]]


def pick(images: ImageDataset, count: int, seed: int) -> Row:
    """Decode `count` images of a split, drawn by `seed` without repeats; fewer where it has no more.

    Others stand in for images that can't be decoded, `_SPARE` at most.
    """
    pictures: list[tuple[Image, str]] = []
    drawn = generator(images, seed).choice(len(images), min(len(images), count + _SPARE), replace=False)
    for position in drawn.tolist():
        if len(pictures) == count:
            break
        try:
            image = images.image(position)
        except UnreadableImageError:
            continue
        image.thumbnail((_LARGEST_PIXELS, _LARGEST_PIXELS))  # so that memory stays small
        pictures.append((image, images.classes[int(images.label[position])]))
    return Row(images.name, images.split, len(images), pictures)


@style.styled
def draw(rows: Sequence[Row], seed: int, width: float) -> Figure:
    """Return the contact sheet: one row per split, the class of each image below it.

    Images are square cells, as large as `width` (inches) and `_LARGEST_INCHES` allow; the height follows from the
    number of rows.
    """
    title = "Random images of every split"
    subtitle = f"Drawn by seed {seed}; below each image its class; n: images of the split."
    names = [f"{style.shorten(row.dataset, 20)}\n{style.shorten(row.split, 20)}\nn = {row.n:,}" for row in rows]
    start = max(style.text_inches(line) for name in names for line in name.split("\n")) + 0.2
    columns = max(1, *(len(row.pictures) for row in rows))
    side = min(_LARGEST_INCHES, (width - start) / columns - _GAP_INCHES)
    row_inches = max(side + _LINE_INCHES, 3 * _LINE_INCHES) + 2 * _GAP_INCHES
    heading = 10 - style.new_figure(width, 10, title, subtitle)[1] + _GAP_INCHES
    height = heading + row_inches * len(rows)
    figure, _ = style.new_figure(width, height, title, subtitle)
    figure.set_layout_engine("none")
    for number, row in enumerate(rows):
        top = height - heading - number * row_inches
        figure.text(0.06 / width, (top - min(side, row_inches) / 2) / height, names[number], va="center")
        if not row.pictures:
            figure.text(start / width, (top - side / 2) / height, "no image could be decoded", va="center")
        for column, (image, class_name) in enumerate(row.pictures):
            left = start + column * (side + _GAP_INCHES)
            style.add_picture(figure, np.asarray(image), left, top, side)
            # Below the cell rather than the picture, whose width differs.
            centre, below = (left + side / 2) / width, (top - side - 0.02) / height
            figure.text(centre, below, _fitting(class_name, side + _GAP_INCHES / 2), ha="center", va="top")
    return figure


def save(figure: Figure, path: Path, dpi: int) -> None:
    """Write the sheet as PNG: the pictures are pixels, so a PDF of them would only take longer."""
    figure.savefig(path, dpi=dpi, metadata={"Software": None})


def _fitting(name: str, inches: float) -> str:
    """Return a name, shortened until it is at most `inches` wide."""
    name = " ".join(name.split())
    for length in range(min(len(name), 40), 2, -1):
        shown = style.shorten(name, length)
        if style.text_inches(shown) <= inches:
            return shown
    return name[:1]
