"""The mix of upstream and downstream images, as rows of the scores of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline_lib.evaluation.alignment import positions
from pipeline_lib.evaluation.scores import Scores
from pipeline_lib.retrieval.store import NeighbourTable


@dataclass(frozen=True)
class MixedRows:
    """Equally many images of both sets, the upstream ones first.

    upstream_row, row: where they stand among the upstream and the downstream scores, int64 [k].
    correct: whether the nearest neighbour within the mix is of the same set and label, bool [2 k].
    """

    upstream_row: np.ndarray
    row: np.ndarray
    correct: np.ndarray

    def uncertainty(self, upstream: np.ndarray, downstream: np.ndarray) -> np.ndarray:
        """Return u of the images in the mix, float [2 k], from that of all images of both sets."""
        return np.concatenate([upstream[self.upstream_row], downstream[self.row]])


def mix_of(neighbours: NeighbourTable, sample_id: np.ndarray, upstream: Scores) -> MixedRows | None:
    """Return the mix of a neighbours artefact, or None where it has none.

    sample_id: of the downstream scores, int64 [n]. Raises `ArtefactError` naming the artefact that lacks an image.
    """
    table = neighbours.mixed
    if table is None:
        return None
    return MixedRows(
        positions(table.sample_id[table.is_upstream], upstream["sample_id"], upstream.manifest.directory),
        positions(table.sample_id[~table.is_upstream], sample_id, neighbours.manifest.directory),
        table.correct,
    )
