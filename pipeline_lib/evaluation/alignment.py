"""Bringing rows of different artefacts together by `sample_id`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline_lib.core.errors import ArtefactError


def positions(wanted: np.ndarray, available: np.ndarray, artefact: Path) -> np.ndarray:
    """Return where each wanted sample_id stands among the available ones, int64 [n].

    wanted, available: sample_ids, int64 [n] and [m]. artefact: where the available ones come from.
    Raises `ArtefactError` naming the artefact and the first image that it lacks.
    """
    order = np.argsort(available, kind="stable")
    rank = np.searchsorted(available, wanted, sorter=order)
    found = order[np.minimum(rank, len(available) - 1)] if len(available) else np.zeros(len(wanted), dtype=np.int64)
    is_missing = available[found] != wanted if len(available) else np.ones(len(wanted), dtype=bool)
    if is_missing.any():
        raise ArtefactError(
            f"{artefact}: lacks {int(is_missing.sum())} of {len(wanted)} images, the first with sample_id "
            f"{int(wanted[is_missing][0])}; delete it and run snakemake again"
        )
    return found


def require_same_images(wanted: np.ndarray, available: np.ndarray, artefact: Path) -> None:
    """Raise `ArtefactError` naming the artefact unless both list the same sample_ids in the same order."""
    positions(wanted, available, artefact)
    if not np.array_equal(wanted, available):
        raise ArtefactError(
            f"{artefact}: has {len(available)} images, but {len(wanted)} in another order or number were expected; "
            "delete it and run snakemake again"
        )
