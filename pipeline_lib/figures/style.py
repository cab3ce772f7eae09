"""The look of every figure, and how figures become files.

Colours are distinguishable for colour-blind readers and differ in luminance; hatches, markers and line styles
repeat what they say, so that a grey print reads the same.

A dry run imports figures only to ask what they read, so matplotlib is imported where something is drawn.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from pipeline_lib.core.artefacts import writing_file

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Parameters = ParamSpec("Parameters")
Look = dict[str, Any]  # what matplotlib's functions take as keywords

TITLE_SIZE = 9
TEXT_SIZE = 7
GREY = "0.55"
GRID: Look = {"color": "0.88", "linewidth": 0.5}
_FONT = "DejaVu Sans"
_POINTS_PER_INCH = 72
LINE_INCHES = 1.35 * TEXT_SIZE / _POINTS_PER_INCH
_RC = {
    "font.family": _FONT,
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

_shows_titles = contextvars.ContextVar("_shows_titles", default=True)


@dataclass(frozen=True)
class Series:
    """How one of several things is drawn; each attribute alone tells the first few apart."""

    colour: str
    hatch: str
    marker: str
    fill: str
    line: Any

    @property
    def points(self) -> Look:
        """What `Axes.plot` and `handle` need to draw it as points."""
        return {
            "linestyle": "",
            "marker": self.marker,
            "color": self.colour,
            "fillstyle": self.fill,
            "markerfacecoloralt": "white",
        }

    @property
    def marked_line(self) -> Look:
        """What `Axes.plot` and `handle` need to draw it as a line with markers."""
        return {"linestyle": self.line, "marker": self.marker, "color": self.colour, "fillstyle": self.fill}


def series(position: int) -> Series:
    """Return the style of the thing at a position in a list (a backbone, a variant); styles repeat when used up."""
    return Series(*(choices[position % len(choices)] for choices in (_COLOURS, _HATCHES, _MARKERS, _FILLS, _LINES)))


@functools.cache
def _rc() -> Any:
    """Return matplotlib's settings: its own defaults, for a user's matplotlibrc must not change a figure, then ours."""
    import matplotlib

    defaults = matplotlib.rcParamsDefault
    return {key: value for key, value in defaults.items() if not key.startswith(("backend", "webagg"))} | _RC


def styled(draw: Callable[Parameters, Figure]) -> Callable[Parameters, Figure]:
    """Decorate a function that draws a figure: artists take their look when they are made."""

    @functools.wraps(draw)
    def with_style(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context(_rc()):
            return draw(*args, **kwargs)

    return with_style


@contextlib.contextmanager
def titles(shown: bool) -> Iterator[None]:
    """Draw the figures of the `with` block with their titles and subtitles, or without: a paper has captions."""
    token = _shows_titles.set(shown)
    try:
        yield
    finally:
        _shows_titles.reset(token)


def new_figure(
    width: float,
    height: float,
    title: str,
    subtitle: str,
    rows: int = 0,
    row_inches: float = 0,
    legend_inches: float = 0,
) -> tuple[Figure, float]:
    """Return an empty figure with its title, and the height that is left below the title; axes are laid out there.

    Parameters
    ----------
    width, height
        Size in inches.
    title, subtitle
        Text of the heading, wrapped to the width; left out in the context `titles(False)`.
    rows, row_inches, legend_inches
        What the panels and the legend need at least: the figure gets higher where `height` leaves less.
    """
    from matplotlib.figure import Figure

    shows = _shows_titles.get()
    heading = _wrap(title, width - 0.12, TITLE_SIZE, "bold") if shows else []
    lines = _wrap(subtitle, width - 0.12, TEXT_SIZE, "normal") if shows else []
    above, under = 0.04, 0.02 if shows else 0.0
    heading_inches = 1.3 * TITLE_SIZE / _POINTS_PER_INCH * len(heading)

    def below(height: float) -> float:
        top = 1 - above / height - heading_inches / height
        return height * top - LINE_INCHES * len(lines) - under

    height = max(height, height - below(height) + legend_inches + rows * row_inches)
    figure = Figure(figsize=(width, height), layout="constrained")
    left, top = 0.06 / width, 1 - above / height
    figure.text(left, top, "\n".join(heading), fontsize=TITLE_SIZE, fontweight="bold", va="top", ha="left")
    top -= heading_inches / height
    figure.text(left, top, "\n".join(lines), fontsize=TEXT_SIZE, va="top", ha="left", color="0.25")
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, 0, 1, below(height) / height))
    return figure, below(height)


def columns_of(count: int, most: int) -> int:
    """Return in how many columns panels stand, so that their rows are about equally long: six of at most five in 3."""
    return math.ceil(count / math.ceil(count / most))


def small_multiples(figure: Figure, count: int, columns: int, sharex: bool = False, sharey: bool = False) -> list[Axes]:
    """Return `count` panels in rows of `columns`.

    The lowest panel of each column, which may be in the last row but one, shows the numbers of its x axis.
    """
    rows = math.ceil(count / columns)
    panels: list[Axes] = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).ravel().tolist()
    for position, panel in enumerate(panels):
        panel.set_visible(position < count)
        if position + columns >= count:
            panel.tick_params(labelbottom=True)
    return panels[:count]


def handle(label: str, **look: Any) -> Line2D:
    """Return an entry of a legend: a line, or a marker with `linestyle=""`."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **look)


def legend(figure: Figure, handles: Sequence[Artist], width: float) -> None:
    """Put a legend below everything, in as many columns as fit into `width` inches."""
    longest = max(text_inches(str(handle.get_label())) for handle in handles)
    columns = int((width - 0.1) / (0.5 + longest))
    figure.legend(handles=list(handles), loc="outside lower left", ncols=max(1, columns), borderaxespad=0.2)


def add_picture(figure: Figure, image: Any, left: float, top: float, side: float) -> Axes:
    """Show an image in a square cell, at its lower edge.

    Parameters
    ----------
    image
        Array [height, width, 3] of uint8.
    left, top, side
        Position of the cell's upper left corner, from the lower left of the figure, and its side, in inches.
    """
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, (top - side) / height, side / width, side / height))
    axes.imshow(image, interpolation="antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_anchor("S")
    return axes


def show_percent(*axes: Axis) -> None:
    """Label axes of shares in percent."""
    from matplotlib.ticker import FuncFormatter

    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g} %"))


def text_inches(text: str, size: float = TEXT_SIZE, weight: str = "normal") -> float:
    """Return how wide a line of text is at a font size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=_FONT, size=size, weight=weight)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / _POINTS_PER_INCH


def _wrap(text: str, width: float, size: float, weight: str) -> list[str]:
    """Return text broken at blanks into lines of at most `width` inches, less what rounding to pixels may add."""
    width *= 0.98
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


def listed(names: list[str]) -> str:
    """Return names as a list for a sentence, in which those beyond the eighth are only counted."""
    shown = ", ".join(shorten(name) for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"


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
    import matplotlib

    with matplotlib.rc_context(_rc()):
        with writing_file(png, "wb") as file:
            figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
        with writing_file(pdf, "wb") as file:
            figure.savefig(file, format="pdf", dpi=dpi, metadata={"CreationDate": None, "Creator": None})
