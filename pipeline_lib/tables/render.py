"""One table as CSV (numbers), Markdown and LaTeX (numbers as a reader wants them)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.core.artefacts import writing_file

if TYPE_CHECKING:
    import pandas as pd

NOTHING = "–"
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|#"})
_TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        ">": r"$>$",
        "|": r"$|$",
        "±": r"$\pm$",
        "−": r"$-$",
        "–": "--",
    }
)


@dataclass(frozen=True)
class Table:
    """A table in two forms.

    values: what the CSV holds, one column per quantity.
    shown: text of each cell, as in Markdown and LaTeX; its columns are the headings.
    bold: booleans of the rows of `shown`; a column that it lacks has nothing bold.
    caption: what the table shows, in a sentence or two.
    groups: number of leading columns that name a group of rows; their repeats are left blank in LaTeX.
    """

    values: pd.DataFrame
    shown: pd.DataFrame
    bold: pd.DataFrame
    caption: str
    groups: int = 0


def number(value: float, decimals: int = 3) -> str:
    """Return a number with a fixed number of decimals and a real minus (none of zero), or a dash for NaN."""
    return NOTHING if math.isnan(value) else f"{value:z.{decimals}f}".replace("-", "−")


def count(value: float) -> str:
    """Return a count with thousands separated, or a dash for NaN."""
    return NOTHING if math.isnan(value) else f"{int(value):,}"


def signed(value: float) -> str:
    """Return a difference with its sign, a real minus for a negative one, or a dash for NaN."""
    return NOTHING if math.isnan(value) else f"{value:+z.3f}".replace("-", "−")


def interval_heading(confidence: float) -> str:
    """Return how a column of intervals is headed: `95 % interval`."""
    return f"{100 * confidence:g} % interval"


def with_spread(value: float, spread: float) -> str:
    """Return a value with its spread over seeds, where there is one."""
    return number(value) if math.isnan(value) or math.isnan(spread) else f"{number(value)} ± {number(spread)}"


def with_spreads(table: pd.DataFrame, value: str, spread: str) -> list[str]:
    """Return the values of one column with the spreads of another."""
    return [with_spread(*pair) for pair in table[[value, spread]].to_numpy(float)]


def number_of_seeds(table: pd.DataFrame) -> str:
    """Return the largest number of the column `seeds`, in which some may be missing, with its noun: `3 seeds`."""
    seeds = int(table["seeds"].max(skipna=True)) if table["seeds"].notna().any() else 0
    return f"{seeds} seed{'s' if seeds != 1 else ''}"


def without_constant(shown: pd.DataFrame, column: str, groups: int) -> tuple[pd.DataFrame, int]:
    """Return what is shown, and its number of leading columns, without one of those that says the same in every row."""
    return (shown.drop(columns=column), groups - 1) if shown[column].nunique() == 1 else (shown, groups)


def write(table: Table, csv: Path, markdown: Path, tex: Path) -> None:
    """Write a table in three forms, each file whole or not at all."""
    contents = {
        csv: table.values.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
        markdown: to_markdown(table),
        tex: to_tex(table),
    }
    for path, text in contents.items():
        with writing_file(path) as file:
            file.write(text)


def to_markdown(table: Table) -> str:
    """Return the caption and a pipe table; columns of names are aligned left, those of numbers right."""
    cells = _cells(table, _escape_markdown, "**{}**")
    heading = [_escape_markdown(column) for column in table.shown.columns]
    rule = [":--" if is_text(table.shown[column]) else "--:" for column in table.shown.columns]
    lines = [f"| {' | '.join(row)} |" for row in [heading, rule, *cells]]
    return "\n".join([_escape_markdown(table.caption), "", *lines]) + "\n"


def to_tex(table: Table) -> str:
    """Return a `tabular` environment for the booktabs package, with the caption as a comment above."""
    heading = " & ".join(_escape_tex(column) for column in table.shown.columns)
    alignment = "".join("l" if is_text(table.shown[column]) else "r" for column in table.shown.columns)
    lines = [f"% {' '.join(table.caption.split())}", rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"]
    lines += [rf"{heading} \\", r"\midrule"]
    previous: list[str] = []
    for row in _cells(table, _escape_tex, r"\textbf{{{}}}"):
        group = row[: table.groups]
        if previous and group != previous:
            lines.append(r"\midrule")
        shown = ["" for _ in group] if group == previous else group
        lines.append(rf"{' & '.join([*shown, *row[table.groups :]])} \\")
        previous = group
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _cells(table: Table, escape: Callable[[str], str], bold: str) -> list[list[str]]:
    marked = table.bold.reindex(columns=table.shown.columns, fill_value=False).to_numpy()
    return [
        [bold.format(escape(text)) if mark else escape(text) for text, mark in zip(row, marks, strict=True)]
        for row, marks in zip(table.shown.to_numpy(), marked, strict=True)
    ]


def is_text(column: pd.Series[str]) -> bool:
    """Return whether a column holds names: they are set flush left, numbers flush right."""
    return not all(text == NOTHING or text[:1] in tuple("+−0123456789") for text in column)


def _escape_markdown(text: str) -> str:
    return text.translate(_MARKDOWN)


def _escape_tex(text: str) -> str:
    return text.translate(_TEX)
