"""What a user gives to be evaluated: checked, brought to one form, and matched row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.arrays.read import Array, read_array
from pipeline_lib.core.errors import NotFiniteError, PipelineError
from pipeline_lib.core.progress import Progress
from pipeline_lib.metrics.retrieval import neighbour_is_correct
from pipeline_lib.retrieval.candidates import NumpySearch
from pipeline_lib.retrieval.neighbours import nearest_others

_BLOCK_VALUES = 1 << 23  # 64 MB in float64
_BLOCK_ROWS = 4096
_NEEDED = (
    "what is right must be known: give --features and --labels (neighbours are searched), "
    "--neighbours and --labels, or --correct"
)


@dataclass(frozen=True)
class Inputs:
    """One embedding model's outputs on n images.

    uncertainties: float64 [n] by name. correct: whether the nearest neighbour has the same label, bool [n].
    neighbour: row of each image's nearest neighbour, int64 [n]; None where only `correct` was given.
    vote_entropy: float64 [n] in nats, NaN for images without votes; None without votes.
    facts: counts about the representation and the labels, where they were given.
    files: the files that were read, by what they hold.
    """

    uncertainties: Mapping[str, np.ndarray]
    correct: np.ndarray
    neighbour: np.ndarray | None
    vote_entropy: np.ndarray | None
    facts: Mapping[str, int]
    files: Mapping[str, Sequence[Path]]


def read_inputs(
    uncertainty: Sequence[str],
    names: Sequence[str] | None,
    features: str | None,
    labels: str | None,
    neighbours: str | None,
    correct: str | None,
    votes: str | None,
) -> Inputs:
    """Read and check everything; find the nearest neighbours when neither they nor `correct` are given.

    Parameters
    ----------
    uncertainty, features, labels, neighbours, correct, votes
        Sources, as `read_array` takes them.
    names
        Of the uncertainties, in order; None takes them from the files.

    Raises
    ------
    PipelineError
        Naming the files that are missing, don't match, or hold values that can't be.
    """
    if correct is None and (labels is None or (features is None and neighbours is None)):
        have = [f"--{key}" for key, value in (("features", features), ("labels", labels), ("neighbours", neighbours))
                if value is not None]  # fmt: skip
        raise PipelineError(f"{_NEEDED}; there is only {', '.join(have) or '--uncertainty'}")
    sources = {"features": features, "labels": labels, "neighbours": neighbours, "correct": correct, "votes": votes}
    arrays = {key: read_array(source, as_text=key == "labels") for key, source in sources.items() if source is not None}
    scored = [read_array(source) for source in uncertainty]
    for array in [*scored[1:], *arrays.values()]:
        if len(array.values) != len(scored[0].values):
            is_bare = any(one.names is None and one.path.suffix.lower() == ".csv" for one in (array, scored[0]))
            raise PipelineError(
                f"{array.source} has {len(array.values)} rows, but {scored[0].source} has {len(scored[0].values)}; "
                "both must have one row per image, in the same order"
                + ("; is the first line of the CSV file, which holds only numbers, a header?" if is_bare else "")
            )
    if len(scored[0].values) < 2:
        raise PipelineError(f"{scored[0].source}: has 1 row; an evaluation needs at least 2 images")
    uncertainties = _uncertainties(scored, names)
    # The cheap checks come first: the search may take minutes.
    vote_entropy = _vote_entropy(arrays["votes"]) if "votes" in arrays else None
    label = _labels(arrays["labels"]) if "labels" in arrays else None
    facts = {}
    if label is not None:
        members = np.bincount(label)
        facts = {"classes": len(members), "lone_class_images": int(np.count_nonzero(members == 1))}
    if "features" in arrays:
        facts["dimension"] = _dimension(arrays["features"])
    neighbour = None
    if label is None or "correct" in arrays:
        is_correct = _correct(arrays["correct"])
    else:
        neighbour = (
            _neighbours(arrays["neighbours"]) if "neighbours" in arrays else nearest_neighbours(arrays["features"])
        )
        is_correct = neighbour_is_correct(label, neighbour)
    files = {"uncertainty": [array.path for array in scored]} | {key: [array.path] for key, array in arrays.items()}
    return Inputs(uncertainties, is_correct, neighbour, vote_entropy, facts, files)


def nearest_neighbours(features: Array, block_rows: int = _BLOCK_ROWS) -> np.ndarray:
    """Return each image's nearest other image by cosine similarity, int64 [n]; block_rows doesn't change the result."""
    values = features.values
    block_rows = max(1, min(block_rows, _BLOCK_VALUES // values.shape[1]))
    try:
        with Progress(len(values), "queries", f"nearest neighbours of {features.source}") as progress:
            read = lambda start, stop: values[start:stop]  # noqa: E731
            return nearest_others(read, len(values), NumpySearch(), block_rows, progress.advance).index
    except NotFiniteError as error:
        raise PipelineError(
            f"{features.source}: row {error.row} holds NaN, infinity or values too large to square; check the model "
            "that made it"
        ) from None


def _uncertainties(arrays: Sequence[Array], names: Sequence[str] | None) -> dict[str, np.ndarray]:
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


def _labels(array: Array) -> np.ndarray:
    """Return classes numbered in order of appearance, int64 [n]."""
    values = _shaped(array, 1, "labels must be [n], one integer or text per image")
    if values.dtype.kind == "f":
        _require(array, np.isfinite(values) & (values == np.round(values)), "a label must be an integer or text")
    return pd.factorize(np.asarray(values))[0].astype(np.int64)


def _dimension(array: Array) -> int:
    _numbers(array, "features must be numbers")
    return _shaped(array, 2, "features must be [n, dimensions]").shape[1]


def _neighbours(array: Array) -> np.ndarray:
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


def _correct(array: Array) -> np.ndarray:
    _numbers(array, "correct must be true or false")
    values = _shaped(array, 1, "correct must be [n]")
    _require(array, (values == 0) | (values == 1), "correct must be 1 (true) or 0 (false)")
    return np.array(values, dtype=bool)


def _vote_entropy(array: Array) -> np.ndarray:
    """Return the entropy in nats of each image's votes, H = -sum_c p_c ln p_c, float64 [n]; NaN without votes."""
    _numbers(array, "votes must be counts")
    values = _shaped(array, 2, "votes must be [n, classes]")
    entropy = np.empty(len(values))
    size = max(1, _BLOCK_VALUES // values.shape[1])
    for start in range(0, len(values), size):
        block = values[start : start + size].astype(np.float64)
        if not (is_count := np.isfinite(block) & (block >= 0)).all():
            row, column = np.argwhere(~is_count)[0]
            raise PipelineError(
                f"{array.source}: row {start + row} has {block[row, column]} votes for class {column}; votes must be "
                "counts of zero or more"
            )
        # Sorted, so that the same votes for other classes give the same entropy to the last bit: ties stay ties.
        block = np.sort(block, axis=1)
        total = block.sum(axis=1, keepdims=True)
        share = np.divide(block, total, out=np.zeros_like(block), where=total > 0)
        terms = share * np.log(share, out=np.zeros_like(share), where=share > 0)
        entropy[start : start + size] = np.where(total[:, 0] > 0, np.abs(terms.sum(axis=1)), np.nan)
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
