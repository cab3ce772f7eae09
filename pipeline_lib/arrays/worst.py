"""The queries to look at: wrong ones that an uncertainty is sure of, and wrong ones that it is most uncertain of."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline_lib.arrays.inputs import Inputs
from pipeline_lib.datasets.base import UnreadableImageError, decode
from pipeline_lib.figures.projection_page import thumbnail
from pipeline_lib.metrics.ranks import rank_shares
from pipeline_lib.metrics.within_classes import worst_queries

COUNT = 12


@dataclass(frozen=True)
class Query:
    """A query whose nearest neighbour is wrong.

    row, neighbour: where they stand among the images; None for a neighbour that isn't known. label, neighbour_label:
    their classes; "" where there are no labels. rank: of its uncertainty among all, 0 to 1. pictures: of both, as data
    URIs, "" for one that can't be read; none where no images were given.
    """

    row: int
    neighbour: int | None
    label: str
    neighbour_label: str
    uncertainty: float
    rank: float
    pictures: Sequence[str]


def find_worst(inputs: Inputs) -> Mapping[str, list[Query]]:
    """Return the worst queries by the first uncertainty: `certain` and `uncertain` ones; {} where right isn't known."""
    if inputs.correct is None:
        return {}
    uncertainty = next(iter(inputs.uncertainties.values()))
    rank = rank_shares(uncertainty)

    def query(row: int) -> Query:
        neighbour = None if inputs.neighbour is None else int(inputs.neighbour[row])
        shown = [row] if neighbour is None else [row, neighbour]
        names = ["" if inputs.label is None else inputs.classes[inputs.label[shown_row]] for shown_row in shown]
        paths = [] if inputs.images is None else [inputs.images[shown_row] for shown_row in shown]
        pictures = [_picture(path) for path in paths]
        return Query(row, neighbour, names[0], (*names, "")[1], float(uncertainty[row]), float(rank[row]), pictures)

    both = worst_queries(uncertainty, ~inputs.correct, COUNT)
    return {
        kind: [query(row) for row in rows.tolist()] for kind, rows in zip(("certain", "uncertain"), both, strict=True)
    }


def _picture(path: str) -> str:
    """Return an image as a data URI; "" after a line on stderr where it can't be read, since all else is known."""
    try:
        return thumbnail(decode(path, path))
    except UnreadableImageError as error:
        print(f"{error}; the report shows the query without it", file=sys.stderr)
        return ""
