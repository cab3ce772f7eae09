"""List what the metrics were made from: every artefact behind them, and the software that made these.

Artefacts are looked for in the results folder of the output, <results>/records/provenance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pipeline_lib.core.jobs import Input, Job, Refs
from pipeline_lib.core.spec import Spec as BaseSpec
from pipeline_lib.stages import metrics

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (Input("evaluations", "artefacts whose origin to list", many=True),)
OUTPUT = "records/provenance"
FILES = ("provenance/artefacts.csv", "provenance/software.csv")


class Spec(BaseSpec):
    """Nothing but the evaluations decides what is listed."""

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the spec of the job."""
        return cls()


def inputs(config: Config) -> Refs:
    """Return the artefacts that the metrics are gathered from."""
    return metrics.inputs(config)


def run(job: Job[Spec]) -> None:
    """Gather and write."""
    from pipeline_lib.tables.lineage import artefacts_behind, mixed

    behind, software = artefacts_behind(job.output.parents[1], job.all_inputs("evaluations"))
    for line in mixed(software):
        print(f"warning: {line}; delete what should be made again with one of them")
    with job.writing() as draft:
        behind.to_csv(draft.path / "artefacts.csv", index=False, lineterminator="\n")
        software.to_csv(draft.path / "software.csv", index=False, lineterminator="\n")
