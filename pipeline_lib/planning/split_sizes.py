"""How many images a split has: as given, as listed by an earlier run, as drawn, or as published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline_lib.config import kinds
from pipeline_lib.core import artefacts
from pipeline_lib.core.errors import ArtefactError, PipelineError, did_you_mean, one_of
from pipeline_lib.datasets.spec import DatasetSpec
from pipeline_lib.planning.published_sizes import published_size

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

# Kinds whose images are made from their options, so that they can be counted without any file.
DRAWN_KINDS = ("blend", "digits", "glyphs")
Source = Literal["given", "listed", "drawn", "published", "unknown"]


@dataclass(frozen=True)
class SplitSize:
    """The number of images in a split and of its dataset's classes (None: unknown), and where the first comes from."""

    images: int | None
    classes: int | None
    source: Source


def split_sizes(config: Config, given: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], SplitSize]:
    """Return the size of every split that a config extracts, by (dataset, split).

    Parameters
    ----------
    config : Config
        What is extracted.
    given : mapping
        Sizes that the user knows; they win over all others.

    Raises
    ------
    PipelineError
        A given size is of a split that no job reads, or a listed or drawn dataset lacks a split.
    """
    used = [(config.upstream.dataset, config.upstream.train_split)]
    used += [(entry.dataset, entry.split) for entry in config.evaluation_sets]
    for dataset, split in given:
        if (dataset, split) not in used:
            names = ["/".join(names) for names in used]
            name = f"{dataset}/{split}"
            raise PipelineError(
                f"--images {name}: no job of this config reads it; it reads {one_of(names)}{did_you_mean(name, names)}"
            )
    return {(dataset, split): _size(config, dataset, split, given.get((dataset, split))) for dataset, split in used}


def _size(config: Config, dataset: str, split: str, given: int | None) -> SplitSize:
    found = _listed(config, dataset) or _drawn(config, dataset)
    if given is not None:
        return SplitSize(given, found[2] if found else None, "given")
    if found is None:
        images = published_size(config.datasets[dataset], split)
        return SplitSize(images, None, "unknown" if images is None else "published")
    source, splits, classes = found
    if split not in splits:
        raise PipelineError(f"dataset '{dataset}' has no split '{split}'; it has {one_of(splits)}")
    return SplitSize(splits[split], classes, source)


def _listed(config: Config, dataset: str) -> tuple[Source, dict[str, int], int] | None:
    """Return what an earlier run listed from the same options, if one did."""
    directory = Path(config.results_dir) / "datasets" / dataset
    try:
        manifest = artefacts.read(directory, "dataset", DatasetSpec.of(config, dataset).plain(), verify=False)
    except ArtefactError:
        return None
    return "listed", dict(manifest.facts["splits"]), len(manifest.facts["classes"])


def _drawn(config: Config, dataset: str) -> tuple[Source, dict[str, int], int] | None:
    options = config.datasets[dataset]
    if options.kind not in DRAWN_KINDS:
        return None
    index = kinds.load("datasets", options.kind).build_index(options, Path(config.data_dir))
    return "drawn", {name: index.split.count(name) for name in dict.fromkeys(index.split)}, len(index.classes)
