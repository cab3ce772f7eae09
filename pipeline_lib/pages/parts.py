"""What pages share: their style, typeset tables, pictures as text. A page needs nothing but itself."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import NamedTuple

import jinja2

from pipeline_lib.tables.render import Table, is_text


class Column(NamedTuple):
    """A column of a table; `is_text`: names, which stand on the left, while numbers stand on the right."""

    heading: str
    is_text: bool


class Cell(NamedTuple):
    """What stands in one cell."""

    text: str
    is_bold: bool


class Typeset(NamedTuple):
    """A table as the macro `show_table` of parts.html takes it."""

    columns: list[Column]
    rows: list[list[Cell]]
    caption: str


def template(file: Path) -> jinja2.Template:
    """Return a page's template, which may include `parts.css` and import from `parts.html`."""
    loader = jinja2.FileSystemLoader([file.parent, Path(__file__).parent])
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(file.name)


def typeset(table: Table) -> Typeset:
    """Return a table for a page."""
    bold = table.bold.reindex(columns=table.shown.columns, fill_value=False)
    columns = [Column(name, is_text(table.shown[name])) for name in table.shown.columns]
    rows = [
        [Cell(text, bool(mark)) for text, mark in zip(texts, marks, strict=True)]
        for texts, marks in zip(table.shown.to_numpy(), bold.to_numpy(), strict=True)
    ]
    return Typeset(columns, rows, table.caption)


def as_data(content: bytes, kind: str) -> str:
    """Return the content of a picture as an address; kind: its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
