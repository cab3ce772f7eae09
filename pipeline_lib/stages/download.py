"""Fetch the files of a dataset, check and unpack them: writes manifest.json, the files go below data_dir.

What is there already is checked and not fetched. A download that was interrupted goes on where it stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pipeline_lib.config.download import Download
from pipeline_lib.core.jobs import Input, Job, Refs
from pipeline_lib.core.spec import Spec as BaseSpec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS: tuple[Input, ...] = ()
OUTPUT = "downloads/{dataset}"


class Spec(BaseSpec):
    """The files to fetch. Their addresses and checksums are excluded: a new mirror changes no file."""

    name: str
    data_dir: str
    download: tuple[Download, ...] = Field(exclude=True)

    @classmethod
    def of(cls, config: Config, dataset: str) -> Spec:
        """Return the spec of a job."""
        return cls(name=dataset, data_dir=config.data_dir, download=config.datasets[dataset].download)

    def plain(self) -> dict[str, Any]:
        """Return the spec as plain JSON values, with the path of each file and where it is unpacked."""
        return super().plain() | {"files": [[entry.file, entry.unpack_to] for entry in self.download]}


def inputs(config: Config, dataset: str) -> Refs:
    """Return nothing: the files come from elsewhere."""
    return {}


def run(job: Job[Spec]) -> None:
    """Get every file; the manifest's facts say what each is and where it came from."""
    from pipeline_lib.datasets.downloads import content_of, obtain

    spec = job.spec
    files = [obtain(entry, Path(spec.data_dir), spec.download) for entry in spec.download]
    with job.writing() as draft:
        draft.facts.update(files=files)
        draft.content = content_of(files)
