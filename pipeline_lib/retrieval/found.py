"""What a search of a safe index found, and why it refused to answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline_lib.retrieval.signals import Signal

NO_ITEM = -1


@dataclass(frozen=True)
class Found:
    """What a search of n queries for k items found.

    ids: int64 [n, k], nearest first; -1 where there is none: in every place of a rejected query.
    similarity: cosine, float64 [n, k]; NaN where there is none.
    is_rejected: bool [n]. uncertainty, distance: of the queries, the latter to the nearest item, float64 [n].
    signal: what queries are rejected by. value, threshold: of it, and the largest that is accepted, float64 [n].
    share: of the `references` images of each query, int64 [n], which is above it; None for a threshold that was set.
    label: class of the nearest item, int64 [n], where there are several; else None.
    """

    ids: np.ndarray
    similarity: np.ndarray
    is_rejected: np.ndarray
    uncertainty: np.ndarray
    distance: np.ndarray
    signal: Signal
    value: np.ndarray
    threshold: np.ndarray
    share: float | None
    references: np.ndarray
    label: np.ndarray | None

    def reason(self, query: int) -> str | None:
        """Return one line that says why a query (its position) was rejected; None for one that was answered."""
        if not self.is_rejected[query]:
            return None
        above = f"above {self.threshold[query]:.6g}"
        u, distance = f"uncertainty {self.uncertainty[query]:.6g}", f"distance {self.distance[query]:.6g}"
        what, most = {
            "uncertainty": (f"{u} is {above}, like that", "most uncertain"),
            "distance": (f"{distance} to the nearest item is {above}, like that", "farthest"),
            "both": (
                f"{u} and {distance} to the nearest item together give {self.value[query]:.6g}, {above}, like those",
                "most uncertain and farthest",
            ),
        }[self.signal]
        near = "" if self.label is None else f" near class {self.label[query]}"
        if self.share is None:
            return what.rpartition(", ")[0] + f", the threshold that was set{near.replace('near', 'for', 1)}"
        return f"{what} of the {100 * self.share:g} % {most} of {self.references[query]:,} reference images{near}"
