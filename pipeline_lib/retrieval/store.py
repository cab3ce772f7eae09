"""The neighbours artefact: each image's nearest neighbour in its set, and in a mix with upstream images.

Reading it needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.core.jobs import Job
from pipeline_lib.features.cache import FeatureCache

if TYPE_CHECKING:
    from pipeline_lib.retrieval.cosine import Nearest

STAGE = "neighbours"
TABLE = "neighbours.parquet"
MIXED_TABLE = "mixed.parquet"


@dataclass(frozen=True)
class MixedTable:
    """A mix of upstream and downstream images: the upstream ones first, each set in the order of its cache.

    is_upstream: bool [k]. sample_id: int64 [k], in its own dataset. neighbour: int64 [k], position in this table.
    correct: bool [k], whether the neighbour is of the same set and label.
    """

    is_upstream: np.ndarray
    sample_id: np.ndarray
    neighbour: np.ndarray
    correct: np.ndarray


@dataclass(frozen=True)
class NeighbourTable:
    """Images and their nearest neighbours, in the order of the cache.

    sample_id, neighbour_sample_id: int64 [n]. similarity: cosine, float64 [n].
    mixed: the mix with upstream images; None where there is none, as for the upstream images themselves.
    """

    manifest: Manifest
    sample_id: np.ndarray
    neighbour_sample_id: np.ndarray
    similarity: np.ndarray
    mixed: MixedTable | None


def write_neighbours(job: Job[Any], found: Nearest, cache: FeatureCache, mixed: MixedTable | None = None) -> None:
    """Write the neighbours of the images of a cache and, where there is one, the mix with upstream images.

    The manifest's facts say how many `rows` there are and how many images are alone in their class
    (`lone_class_images`): their neighbour can't be right.
    """
    sample_id = cache.read_all("sample_id")
    with job.writing() as draft:
        table = {
            "sample_id": sample_id,
            "neighbour_sample_id": sample_id[found.index],
            "similarity": found.similarity,
        }
        pq.write_table(pa.table(table), draft.path / TABLE)
        if mixed is not None:
            pq.write_table(pa.table(vars(mixed)), draft.path / MIXED_TABLE)
        draft.facts.update(rows=len(sample_id), lone_class_images=lone_class_images(cache.read_all("label")))


def read_neighbours(directory: Path, expected: Mapping[str, Any] | None = None) -> NeighbourTable:
    """Read a neighbours artefact; raises `ArtefactError` when it is damaged or not the `expected` one."""
    manifest = artefacts.read(directory, STAGE, expected)
    columns = read_columns(Path(directory) / TABLE)
    mixed = MixedTable(**read_columns(Path(directory) / MIXED_TABLE)) if MIXED_TABLE in manifest.files else None
    return NeighbourTable(manifest, **columns, mixed=mixed)


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a parquet file by name."""
    table = pq.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def lone_class_images(label: np.ndarray) -> int:
    """Return how many images are the only one of their class. label: int64 [n]."""
    _, counts = np.unique(label, return_counts=True)
    return int(np.count_nonzero(counts == 1))
