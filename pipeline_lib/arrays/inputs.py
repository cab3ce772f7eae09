"""What a user gives to be evaluated: checked, brought to one form, and matched row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline_lib.arrays import checks
from pipeline_lib.arrays.read import Array, read_array
from pipeline_lib.core.errors import NotFiniteError, PipelineError
from pipeline_lib.core.progress import Progress
from pipeline_lib.datasets.text_table import SUFFIXES
from pipeline_lib.metrics.retrieval import neighbour_is_correct
from pipeline_lib.retrieval.candidates import NumpySearch
from pipeline_lib.retrieval.neighbours import nearest_others
from pipeline_lib.retrieval.signals import combine

DISTANCE = "1-NN distance"
_BLOCK_ROWS = 4096
_NEEDED = (
    "what is right must be known: give --features and --labels (neighbours are searched), "
    "--neighbours and --labels, or --correct (or --votes, for the agreement with people alone)"
)


@dataclass(frozen=True)
class Inputs:
    """One embedding model's outputs on n images.

    uncertainties: float64 [n] by name: those that were given and, where neighbours were searched for, the distance to
    them and each uncertainty together with it (see `retrieval.signals`).
    correct: whether the nearest neighbour has the same label, bool [n]; None where there are votes alone.
    neighbour: row of each image's nearest neighbour, int64 [n]; None where it isn't known.
    vote_entropy: float64 [n] in nats, NaN for images without votes; None without votes.
    label: class of each image, int64 [n] from 0, in the order of `classes`; None without labels.
    images: the path of each; None where they weren't given.
    facts: counts about the representation and the labels, where they were given.
    files: the files that were read, by what they hold.
    """

    uncertainties: Mapping[str, np.ndarray]
    correct: np.ndarray | None
    neighbour: np.ndarray | None
    vote_entropy: np.ndarray | None
    facts: Mapping[str, int]
    files: Mapping[str, Sequence[Path]]
    label: np.ndarray | None = None
    classes: Sequence[str] = ()
    images: Sequence[str] | None = None


def read_inputs(
    uncertainty: Sequence[str],
    names: Sequence[str] | None,
    features: str | None,
    labels: str | None,
    neighbours: str | None,
    correct: str | None,
    votes: str | None,
    vote_entropy: str | None = None,
    images: str | None = None,
) -> Inputs:
    """Read and check everything; find the nearest neighbours when neither they nor `correct` are given.

    Parameters
    ----------
    uncertainty, features, labels, neighbours, correct, votes, vote_entropy, images
        Sources, as `read_array` takes them.
    names
        Of the uncertainties, in order; None takes them from the files.

    Raises
    ------
    PipelineError
        Naming the files that are missing, don't match, or hold values that can't be.
    """
    sources = {"features": features, "labels": labels, "neighbours": neighbours, "correct": correct}
    have = [f"--{key}" for key, source in sources.items() if source is not None]
    is_known = correct is not None or (labels is not None and (features is not None or neighbours is not None))
    if not is_known and (have or (votes is None and vote_entropy is None)):
        raise PipelineError(f"{_NEEDED}; there is only {', '.join(have) or '--uncertainty'}")
    sources |= {"votes": votes, "vote entropy": vote_entropy, "images": images}
    arrays = {
        key: read_array(source, as_text=key in ("labels", "images"))
        for key, source in sources.items()
        if source is not None
    }
    scored = [read_array(source) for source in uncertainty]
    for array in [*scored[1:], *arrays.values()]:
        if len(array.values) != len(scored[0].values):
            is_bare = any(one.names is None and one.path.suffix.lower() in SUFFIXES for one in (array, scored[0]))
            raise PipelineError(
                f"{array.source} has {len(array.values)} rows, but {scored[0].source} has {len(scored[0].values)}; "
                "both must have one row per image, in the same order"
                + ("; is the first line of the CSV file, which holds only numbers, a header?" if is_bare else "")
            )
    if len(scored[0].values) < 2:
        raise PipelineError(f"{scored[0].source}: has 1 row; an evaluation needs at least 2 images")
    uncertainties = checks.uncertainties(scored, names)
    # The cheap checks come first: the search may take minutes.
    label, facts = None, {}
    classes: list[str] = []
    if "labels" in arrays:
        label, classes = checks.labels(arrays["labels"])
        facts = {"classes": len(classes), "lone_class_images": int(np.count_nonzero(np.bincount(label) == 1))}
    entropy = None
    if "votes" in arrays:
        entropy = checks.entropy_of_votes(arrays["votes"], len(classes))
    elif "vote entropy" in arrays:
        entropy = checks.vote_entropy(arrays["vote entropy"])
    if "features" in arrays:
        facts["dimension"] = checks.dimension(arrays["features"])
    paths = checks.image_paths(arrays["images"]) if "images" in arrays else None
    neighbour = is_correct = None
    if "correct" in arrays:
        is_correct = checks.correct(arrays["correct"])
    elif label is not None:
        if "neighbours" in arrays:
            neighbour = checks.neighbours(arrays["neighbours"])
        else:
            neighbour, distance = nearest_neighbours(arrays["features"])
            uncertainties = _with_distance(uncertainties, distance)
        is_correct = neighbour_is_correct(label, neighbour)
    files = {"uncertainty": [array.path for array in scored]} | {key: [array.path] for key, array in arrays.items()}
    return Inputs(uncertainties, is_correct, neighbour, entropy, facts, files, label, classes, paths)


def _with_distance(uncertainties: dict[str, np.ndarray], distance: np.ndarray) -> dict[str, np.ndarray]:
    """Return what was given, the distance, and each together with it, unless something was given by that name."""
    together = {f"{name} + distance": combine(distance, values) for name, values in uncertainties.items()}
    ours = {DISTANCE: distance} | together
    return uncertainties | {name: values for name, values in ours.items() if name not in uncertainties}


def nearest_neighbours(features: Array, block_rows: int = _BLOCK_ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's nearest other image by cosine similarity, int64 [n], and its distance, float64 [n].

    block_rows doesn't change the result.
    """
    values = features.values
    block_rows = max(1, min(block_rows, checks.BLOCK_VALUES // values.shape[1]))
    try:
        with Progress(len(values), "queries", f"nearest neighbours of {features.source}") as progress:
            read = lambda start, stop: values[start:stop]  # noqa: E731
            found = nearest_others(read, len(values), NumpySearch(), block_rows, progress.advance)
    except NotFiniteError as error:
        raise PipelineError(
            f"{features.source}: row {error.row} holds NaN, infinity or values too large to square; check the model "
            "that made it"
        ) from None
    # Between equal vectors rounding can put the similarity above one.
    return found.index, np.maximum(1 - found.similarity, 0)
