"""The neighbours artefact: one row per image with its nearest neighbour. Reading it needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib import artefacts
from pipeline_lib.artefacts import Manifest
from pipeline_lib.features.cache import FeatureCache

if TYPE_CHECKING:
    from pipeline_lib.retrieval.neighbours import Neighbours

STAGE = "neighbours"
TABLE = "neighbours.parquet"


@dataclass(frozen=True)
class NeighbourTable:
    """Images and their nearest neighbours, in the order of the cache.

    sample_id, neighbour_sample_id: int64 [n]. similarity: cosine, float64 [n].
    """

    manifest: Manifest
    sample_id: np.ndarray
    neighbour_sample_id: np.ndarray
    similarity: np.ndarray


def write_neighbours(directory: Path, spec: Mapping[str, Any], found: Neighbours, cache: FeatureCache) -> None:
    """Write the neighbours of the images of a cache.

    The manifest's facts say how many `rows` there are and how many images are alone in their class
    (`lone_class_images`): their neighbour can't be right.
    """
    sample_id = cache.read_all("sample_id")
    with artefacts.writing(directory, STAGE, spec) as draft:
        table = {
            "sample_id": sample_id,
            "neighbour_sample_id": sample_id[found.index],
            "similarity": found.similarity,
        }
        pq.write_table(pa.table(table), draft.path / TABLE)
        draft.add_input("features", cache.manifest)
        draft.facts.update(rows=len(sample_id), lone_class_images=lone_class_images(cache.read_all("label")))


def read_neighbours(directory: Path, expected: Mapping[str, Any] | None = None) -> NeighbourTable:
    """Read a neighbours artefact; raises `ArtefactError` when it is damaged or not the `expected` one."""
    manifest = artefacts.read(directory, STAGE, expected)
    table = pq.read_table(Path(directory) / TABLE)
    return NeighbourTable(
        manifest, *(table[name].to_numpy() for name in ("sample_id", "neighbour_sample_id", "similarity"))
    )


def lone_class_images(label: np.ndarray) -> int:
    """Return how many images are the only one of their class. label: int64 [n]."""
    _, counts = np.unique(label, return_counts=True)
    return int(np.count_nonzero(counts == 1))
