"""The look of every figure, and how figures become files.

Colours are distinguishable for colour-blind readers and differ in luminance; hatches, markers and line styles
repeat what they say, so that a grey print reads the same.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from pipeline_lib.core.artefacts import writing_file

TITLE_SIZE = 9
TEXT_SIZE = 7
GREY = "0.55"
_POINTS_PER_INCH = 72
_LINE_INCHES = 1.35 * TEXT_SIZE / _POINTS_PER_INCH

# A user's own matplotlibrc must not change a figure: start from matplotlib's defaults.
_RC = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith(("backend", "webagg"))} | {
    "font.family": "DejaVu Sans",
    "font.size": TEXT_SIZE,
    "axes.titlesize": TEXT_SIZE + 1,
    "axes.labelsize": TEXT_SIZE,
    "xtick.labelsize": TEXT_SIZE,
    "ytick.labelsize": TEXT_SIZE,
    "legend.fontsize": TEXT_SIZE,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "text.parse_math": False,  # names are not formulas
    "pdf.fonttype": 42,  # text stays text
    "figure.constrained_layout.h_pad": 0.04,
    "figure.constrained_layout.w_pad": 0.04,
}

# The first three are Paul Tol's high-contrast scheme, made for grey prints.
_COLOURS = ("#004488", "#DDAA33", "#BB5566", "#55AADD", "#222222", "#009988", "#EE99AA", "#999933")
_HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "----", "oo", "++")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "*", "h")
_FILLS = ("full", "none", "left", "bottom", "right", "top")
_LINES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (7, 2)), (0, (3, 1, 1, 1, 1, 1)))


@dataclass(frozen=True)
class Series:
    """How one of several things is drawn; each attribute alone tells the first few apart."""

    colour: str
    hatch: str
    marker: str
    fill: str
    line: Any


def series(position: int) -> Series:
    """Return the style of the thing at a position in a list (a backbone, a variant); styles repeat when used up."""
    pick = [each[position % len(each)] for each in (_COLOURS, _HATCHES, _MARKERS, _FILLS, _LINES)]
    return Series(*pick)


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorate a function that draws a figure: artists take their look when they are made."""

    @functools.wraps(draw)
    def with_style(*args: Any, **kwargs: Any) -> Figure:
        with matplotlib.rc_context(_RC):
            return draw(*args, **kwargs)

    return with_style


def new_figure(width: float, height: float, title: str, subtitle: str) -> tuple[Figure, float]:
    """Return an empty figure with its title and the height in inches that is left below the title.

    width, height: inches. The subtitle is wrapped to the width. Axes are laid out below both.
    """
    heading = _wrap(title, width - 0.12, TITLE_SIZE, "bold")
    lines = _wrap(subtitle, width - 0.12, TEXT_SIZE, "normal")
    heading_inches = 1.3 * TITLE_SIZE / _POINTS_PER_INCH * len(heading)
    left = 0.06 / width
    figure = Figure(figsize=(width, height), layout="constrained")
    top = 1 - 0.04 / height
    figure.text(left, top, "\n".join(heading), fontsize=TITLE_SIZE, fontweight="bold", va="top", ha="left")
    top -= heading_inches / height
    figure.text(left, top, "\n".join(lines), fontsize=TEXT_SIZE, va="top", ha="left", color="0.25")
    below = height * top - _LINE_INCHES * len(lines) - 0.02
    figure.get_layout_engine().set(rect=(0, 0, 1, below / height))
    return figure, below


def small_multiples(figure: Figure, count: int, columns: int, **shared: bool) -> list[Axes]:
    """Return `count` panels in rows of `columns`.

    The lowest panel of each column, which may be in the last row but one, shows the numbers of its x axis.

    shared: `sharex` and `sharey` of `Figure.subplots`.
    """
    panels = figure.subplots(math.ceil(count / columns), columns, squeeze=False, **shared).ravel().tolist()
    for place, panel in enumerate(panels):
        panel.set_visible(place < count)
        if place + columns >= count:
            panel.tick_params(labelbottom=True)
    return panels[:count]


def legend(figure: Figure, handles: list[Artist], width: float) -> None:
    """Put a legend below everything, in as many columns as fit into `width` inches."""
    longest = max(text_inches(handle.get_label()) for handle in handles)
    columns = int((width - 0.1) / (0.5 + longest))
    figure.legend(handles=handles, loc="outside lower left", ncols=max(1, columns), borderaxespad=0.2)


def text_inches(text: str, size: float = TEXT_SIZE, weight: str = "normal") -> float:
    """Return how wide a line of text is at a font size in points."""
    font = FontProperties(family=_RC["font.family"], size=size, weight=weight)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / _POINTS_PER_INCH


def _wrap(text: str, width: float, size: float, weight: str) -> list[str]:
    """Return text broken at blanks into lines of at most `width` inches."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_inches(longer, size, weight) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def plural(number: int, noun: str) -> str:
    """Return a count with its noun: `1 seed`, `1,200 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: list[str], limit: int = 8) -> str:
    """Return names as a list for a sentence, in which those beyond `limit` are only counted."""
    shown = ", ".join(shorten(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def shorten(name: str, length: int = 26) -> str:
    """Return a name with its middle left out when it is longer than `length` characters."""
    if len(name) <= length:
        return name
    tail = (length - 1) // 3
    return f"{name[: length - 1 - tail]}…{name[-tail:]}"


def save(figure: Figure, png: Path, pdf: Path, dpi: int) -> None:
    """Write a figure as PNG (`dpi` dots per inch) and PDF; each file whole or not at all.

    Equal figures give equal bytes: neither file holds a date.
    """
    with matplotlib.rc_context(_RC):
        with writing_file(png, "wb") as file:
            figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
        with writing_file(pdf, "wb") as file:
            figure.savefig(file, format="pdf", dpi=dpi, metadata={"CreationDate": None, "Creator": None})
