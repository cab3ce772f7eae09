"""A set of TensorFlow Datasets that is prepared as array_record files, read with its library but without TensorFlow."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

from pipeline_lib.core.errors import PipelineError, did_you_mean, one_line, one_of
from pipeline_lib.datasets.tfds_records import read_record


@functools.lru_cache(maxsize=8)
def open_builder(directory: str) -> Any:
    """Return the TFDS builder of a prepared set."""
    try:
        import array_record  # noqa: F401 (the process that reads records would find out much later)
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise PipelineError(f"kind tfds: {error}; install it with: pip install '.[tfds]'") from None
    try:
        return tfds.builder_from_directory(directory)
    except Exception as error:  # TFDS has many classes of its own for a damaged description
        raise PipelineError(
            f"{directory}: can't be read as a TFDS set ({one_line(error)}); delete the folder and prepare it again"
        ) from None


@functools.lru_cache(maxsize=8)
def _pictures(directory: str) -> dict[str, Any]:
    """Return how TFDS decodes the Image features: not at all."""
    import tensorflow_datasets as tfds

    features = open_builder(directory).info.features
    return {key: tfds.decode.SkipDecoding() for key in features if isinstance(features[key], tfds.features.Image)}


def read(folder: str, location: str) -> dict[str, Any]:
    """Return the features of a record, pictures as encoded bytes.

    Parameters
    ----------
    folder : str
        Has one folder per version.
    location : str
        `version/file/number`.

    Raises
    ------
    OSError
        The record can't be read.
    PipelineError
        TFDS is not installed, or the version's description is damaged.
    """
    version, file, number = location.split("/")
    directory = f"{folder}/{version}"
    record = read_record(f"{directory}/{file}", int(number))
    return open_builder(directory).info.features.deserialize_example_np(record, decoders=_pictures(directory))


def check_feature(features: Any, key: str, kind: str, where: str) -> None:
    """Raise `PipelineError` unless a feature of this name and kind is among the features of the set."""
    of_kind = [name for name, feature in features.items() if type(feature).__name__ == kind]
    if key not in of_kind:
        raise PipelineError(
            f"{where} '{key}' is no {kind} feature of the set; it has {one_of(of_kind)}{did_you_mean(key, of_kind)}"
        )


def find_parts(builder: Any, splits: dict[str, str], where: str) -> dict[str, list[tuple[str, int, int]]]:
    """Return the records of each split as (file, first, end).

    Raises
    ------
    PipelineError
        A TFDS split doesn't exist, or two overlap; `where` names the set.
    """
    parts: dict[str, list[tuple[str, int, int]]] = {}
    for name, tfds_split in splits.items():
        try:
            instructions = builder.info.splits[tfds_split].file_instructions
        except (KeyError, ValueError) as error:
            raise PipelineError(
                f"{where}: '{tfds_split}' for split '{name}' is no TFDS split ({one_line(error)}); the set has "
                f"{one_of(builder.info.splits)}{did_you_mean(tfds_split, builder.info.splits)}"
            ) from None
        parts[name] = [(Path(part.filename).name, part.skip, part.skip + part.take) for part in instructions]
    everything = sorted((*part, name) for name, of_split in parts.items() for part in of_split)
    for (file, _, end, name), (other_file, start, _, other) in itertools.pairwise(everything):
        if file == other_file and start < end:
            raise PipelineError(
                f"{where}: splits '{name}' ({splits[name]}) and '{other}' ({splits[other]}) share images; part them"
            )
    return parts
