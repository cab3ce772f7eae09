"""Errors that a user can act on.

A `PipelineError` carries one line that names the thing that is wrong, its value, what was allowed and
what to do. The command line prints that line alone; a traceback is kept for faults of our own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PipelineError(Exception):
    """Something outside the code is wrong: a config value, a file, a checkpoint, a full disk."""


class ArtefactError(PipelineError):
    """An artefact on disk is missing, incomplete, damaged, or not the one that was asked for."""


class NotFiniteError(PipelineError):
    """A value of a row of features is NaN or infinite; `row` is its number, for those who know its image."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


def did_you_mean(value: str, allowed: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the closest allowed name, or an empty string when none is close."""
    close = difflib.get_close_matches(str(value), [str(name) for name in allowed], n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def one_of(allowed: Iterable[str]) -> str:
    """Return the allowed names as a short, sorted, readable list."""
    return ", ".join(sorted(str(name) for name in allowed)) or "nothing"


def one_line(error: object) -> str:
    """Return the text of an error without line breaks; of one without a text, its type."""
    return " ".join(str(error).split()) or type(error).__name__
