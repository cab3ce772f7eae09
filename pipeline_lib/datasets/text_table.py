"""Tables as text files, and checks of the labels and votes in any table, whoever gives it."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipeline_lib.core.errors import PipelineError

SUFFIXES = (".csv", ".tsv")
_DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")
ENCODING = "utf-8-sig"  # with or without the mark that Excel writes first


def separator_of(path: Path) -> str:
    """Return what separates the fields of a .csv (a comma, or the semicolon of many countries) or .tsv.

    Raises
    ------
    PipelineError
        For a line with more fields than the first, as an unquoted comma in a text makes, or an empty one between
        others, which readers would leave out; the line is named.
    ValueError
        For what is no text, or no table.
    """
    try:
        return _checked_separator(path)
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _checked_separator(path: Path) -> str:
    separator = "\t"
    with open(path, encoding=ENCODING, newline="") as file:
        if path.suffix.lower() == ".csv":
            first = _DECIMAL_COMMA.sub("", file.readline())
            if first.strip().strip('"').startswith("sep="):
                raise PipelineError(f"{path}: begins with '{first.strip()}', a line for Excel alone; delete it")
            separator = ";" if first.count(";") > first.count(",") else ","
            file.seek(0)
        lines = csv.reader(file, delimiter=separator)
        fields = len(next(lines, []))
        empty = 0
        for line in lines:
            if not line:
                empty = empty or lines.line_num
            elif empty:
                raise PipelineError(f"{path}: line {empty} is empty, but lines follow; delete it, or fill it in")
            elif len(line) > fields:
                raise PipelineError(
                    f"{path}: line {lines.line_num} has {len(line)} fields, but the first line has {fields}; put a "
                    f"text that holds '{separator}' in double quotes"
                )
    return separator


def checked_labels(values: Sequence[str], where: Callable[[int], str], of: str = "") -> list[str]:
    """Return labels without blanks around them; raises `PipelineError` naming the first row without one.

    where: names a row. of: what else the message names, such as " in column 'class'".
    """
    labels = [value.strip() for value in values]
    if "" in labels:
        raise PipelineError(f"{where(labels.index(''))}: has no label{of}; fill it in or delete the row")
    return labels


def require_votes(
    counts: np.ndarray,
    where: Callable[[int], str],
    of_class: Callable[[int], str],
    hint: str,
    without: str,
    shown: Callable[[int, int], str] | None = None,
) -> None:
    """Raise `PipelineError` for votes, float [n, classes], that are no numbers of 0 or more, or a row without any.

    where, of_class: name a row and a class. hint, without: what to do about no numbers and about no votes. shown: the
    text of a count, where it may be none.
    """
    for row, position in np.argwhere(~(np.isfinite(counts) & (counts >= 0)))[:1].tolist():
        value = f"{counts[row, position]:g}" if shown is None else shown(row, position)
        raise PipelineError(f"{where(row)}: '{value}' {of_class(position)} is no number of votes (0 or more); {hint}")
    for row in np.flatnonzero(counts.sum(axis=1) == 0)[:1].tolist():
        raise PipelineError(f"{where(row)}: has no votes at all; {without}")
