"""Checks of what a user gives, array by array; each returns the one form that is worked with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline_lib.arrays.read import Array
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.datasets.text_table import checked_labels, require_votes

BLOCK_VALUES = 1 << 23  # 64 MB in float64
_LEAST_SQUARE = 1e-280  # squares of smaller vectors lose digits, and become 0


def uncertainties(arrays: Sequence[Array], names: Sequence[str] | None) -> dict[str, np.ndarray]:
    """Return float64 [n] by name."""
    columns: list[np.ndarray] = []
    found: list[str] = []
    for array in arrays:
        values = _numbers(array, "an uncertainty must be numbers")
        values = values.astype(np.float64).reshape(len(values), -1)
        if not (is_finite := np.isfinite(values)).all():
            row, column = np.argwhere(~is_finite)[0]
            where = f"row {row}" if values.shape[1] == 1 else f"row {row}, column {column}"
            raise PipelineError(
                f"{array.source}: {where} is {values[row, column]}; an uncertainty must be finite for every image"
            )
        columns += list(np.ascontiguousarray(values.T))
        stem = array.path.stem
        given = array.names or ((stem,) if values.shape[1] == 1 else [f"{stem}_{k}" for k in range(values.shape[1])])
        found += [str(name) for name in given]
    chosen = found if names is None else [name.strip() for name in names]
    if len(chosen) != len(columns) or "" in chosen:
        raise PipelineError(
            f"--names: {len(chosen)} names ({','.join(chosen)}) for {len(columns)} uncertainties "
            f"({', '.join(found)}); give one name for each"
        )
    repeated = [name for position, name in enumerate(chosen) if name in chosen[:position]]
    if repeated:
        raise PipelineError(f"two uncertainties are called '{repeated[0]}'; give different ones with --names")
    return dict(zip(chosen, columns, strict=True))


def labels(array: Array) -> tuple[np.ndarray, list[str]]:
    """Return classes numbered in order of appearance, int64 [n], and their names."""
    values = _shaped(array, 1, "labels must be [n], one integer or text per image")
    if values.dtype.kind == "f":
        _require(array, np.isfinite(values) & (values == np.round(values)), "a label must be an integer or text")
    if values.dtype.kind in "US":
        values = np.array(checked_labels(values.astype(str).tolist(), lambda row: f"{array.source}: row {row}"))
    label, classes = pd.factorize(np.asarray(values))
    return label.astype(np.int64), [f"{name:g}" if values.dtype.kind == "f" else str(name) for name in classes]


def dimension(array: Array) -> int:
    """Return the length of a representation; rows without a direction, which have no nearest neighbour, are refused."""
    _numbers(array, "features must be numbers")
    values = _shaped(array, 2, "features must be [n, dimensions]")
    is_empty, is_tiny = np.empty(len(values), bool), np.empty(len(values), bool)
    size = max(1, BLOCK_VALUES // values.shape[1])
    for start in range(0, len(values), size):
        block = values[start : start + size].astype(np.float64)
        is_empty[start : start + size] = ~block.any(axis=1)
        is_tiny[start : start + size] = np.einsum("nd,nd->n", block, block) < _LEAST_SQUARE
    if is_empty.any():
        first, count = int(np.argmax(is_empty)), int(is_empty.sum())
        is_end = first + count == len(values)
        raise PipelineError(
            f"{array.source}: row {first} is all zero ({count} such rows"
            + (", the last ones: was writing the file interrupted? Make it again)" if is_end else ")")
            + "; a zero vector has no direction and no nearest neighbour: leave such images out of every file"
        )
    if is_tiny.any():
        raise PipelineError(
            f"{array.source}: row {int(np.argmax(is_tiny))} holds values too small to square ({int(is_tiny.sum())} "
            "such rows); multiply the features by a constant, which changes no neighbour"
        )
    return values.shape[1]


def neighbours(array: Array) -> np.ndarray:
    """Return the row of each image's neighbour, int64 [n]."""
    _numbers(array, "neighbours must be row numbers")
    values = _shaped(array, 1, "neighbours must be [n], the row number of the nearest other image")
    rows = len(values)
    is_row = (values >= 0) & (values < rows) & (values == np.floor(values))  # also False for NaN
    _require(array, is_row, f"a neighbour is a row number, 0 to {rows - 1}")
    neighbour = np.array(values, dtype=np.int64)
    if (is_itself := neighbour == np.arange(rows)).any():
        raise PipelineError(
            f"{array.source}: row {int(np.argmax(is_itself))} is its own neighbour "
            f"({int(is_itself.sum())} of {rows} rows are); leave the query out of its own search"
        )
    return neighbour


def correct(array: Array) -> np.ndarray:
    """Return bool [n]."""
    _numbers(array, "correct must be true or false")
    values = _shaped(array, 1, "correct must be [n]")
    _require(array, (values == 0) | (values == 1), "correct must be 1 (true) or 0 (false)")
    return np.array(values, dtype=bool)


def entropy_of_votes(array: Array, classes: int) -> np.ndarray:
    """Return the entropy in nats of each image's votes, H = -sum_c p_c ln p_c, float64 [n].

    NaN for images that nobody was asked about: those whose votes are all NaN. classes: how many the labels have, or 0.
    """
    _numbers(array, "votes must be counts")
    values = _shaped(array, 2, "votes must be [n, classes]")
    if values.shape[1] < classes:
        raise PipelineError(
            f"{array.source}: has votes for {values.shape[1]} classes, but the labels have {classes}; give a column "
            "for each class"
        )
    entropy = np.empty(len(values))
    size = max(1, BLOCK_VALUES // values.shape[1])
    for start in range(0, len(values), size):
        block = values[start : start + size].astype(np.float64)
        asked = ~np.isnan(block).all(axis=1)
        rows = start + np.flatnonzero(asked)
        require_votes(
            block[asked],
            lambda row, rows=rows: f"{array.source}: row {rows[row]}",  # type: ignore[misc]  # a default binds the loop's
            lambda column: f"for class {column}",
            "votes are counts",
            "leave the image out, or make its votes NaN if nobody was asked",
        )
        # Sorted, so that the same votes for other classes give the same entropy to the last bit: ties stay ties.
        block = np.sort(block, axis=1)
        share = block / block.sum(axis=1, keepdims=True)
        terms = share * np.log(share, out=np.zeros_like(share), where=share > 0)
        entropy[start : start + size] = np.abs(terms.sum(axis=1))
    return _some(array, entropy)


def vote_entropy(array: Array) -> np.ndarray:
    """Return entropies of votes in nats, float64 [n]; NaN for images that nobody was asked about."""
    _numbers(array, "entropies must be numbers")
    values = _shaped(array, 1, "entropies of votes must be [n], in nats").astype(np.float64)
    _require(array, (np.isfinite(values) & (values >= 0)) | np.isnan(values), "an entropy is a number of 0 or more")
    return _some(array, values)


def image_paths(array: Array) -> list[str]:
    """Return the path of each image; relative ones start at the folder of the file that lists them."""
    values = _shaped(array, 1, "images must be [n], the path of each")
    if values.dtype.kind not in "US":
        raise PipelineError(f"{array.source}: holds numbers, but images must be paths")
    return [str(array.path.resolve().parent / path) for path in values.astype(str).tolist()]


def _some(array: Array, entropy: np.ndarray) -> np.ndarray:
    if np.isnan(entropy).all():
        raise PipelineError(f"{array.source}: is NaN throughout, so nobody was asked; leave the file out")
    return entropy


def _numbers(array: Array, must: str) -> np.ndarray:
    if array.values.dtype.kind not in "biuf":
        raise PipelineError(f"{array.source}: holds text ('{array.values.flat[0]}' comes first), but {must}")
    return array.values


def _shaped(array: Array, axes: int, must: str) -> np.ndarray:
    if array.values.ndim != axes:
        raise PipelineError(f"{array.source}: has shape {list(array.values.shape)}; {must}")
    return array.values


def _require(array: Array, is_good: np.ndarray, must: str) -> None:
    """Raise `PipelineError` with the first row of values, [n], that is not good, bool [n]."""
    if not is_good.all():
        row = int(np.argmin(is_good))
        raise PipelineError(f"{array.source}: row {row} is {array.values[row]}; {must}")
