"""List the images of a dataset: writes index.parquet and manifest.json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.datasets.spec import DatasetSpec as Spec
from pipeline_lib.stages.sources import Source

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (Input("download", "the record of the files that were fetched, where they are", required=False),)
OUTPUT = "datasets/{dataset}"


def inputs(config: Config, dataset: str) -> Refs:
    """Return the record of the raw files, where a stage fetches them."""
    stage = config.datasets[dataset].fetched_by
    return {"download": None if stage is None else Ref.to(stage, dataset=dataset)}


def plugins(config: Config, dataset: str) -> list[str]:
    """Return the dataset's kind."""
    return [f"datasets.{config.datasets[dataset].kind}"]


def sources(spec: Spec) -> list[Source]:
    """Return the raw files and folders whose change makes the index stale."""
    from pipeline_lib.datasets.outputs import files_of_outputs

    data_dir, watched_files = Path(spec.data_dir), getattr(spec.reader, "watched_files", None)
    lists = files_of_outputs(spec.options.outputs or (), data_dir)
    return [*(watched_files(spec.options, data_dir) if watched_files else ()), *lists]


def run(job: Job[Spec]) -> None:
    """List the images."""
    from pipeline_lib.datasets.images import write_dataset

    write_dataset(job)
