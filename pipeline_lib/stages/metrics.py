"""Gather the metric rows of every evaluation into one tidy table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.core.spec import Spec as BaseSpec
from pipeline_lib.evaluation.spec import wanted_ablations

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (Input("evaluations", "artefacts with metric rows", many=True),)
OUTPUT = "records/metrics"
FILES = ("metrics.csv",)


class Spec(BaseSpec):
    """Nothing but the evaluations decides what the table holds."""

    @classmethod
    def of(cls, config: Config) -> Spec:
        """Return the spec of the job."""
        return cls()


def inputs(config: Config) -> Refs:
    """Return every artefact with metric rows."""
    first_backbone, first_variant = next(iter(config.backbones)), next(iter(config.variants))
    refs = []
    for entry in config.evaluation_sets:
        pair = {"dataset": entry.dataset, "split": entry.split}
        refs += [
            Ref.to("baselines", backbone=backbone, **pair)
            for backbone in [*config.backbones, *config.benchmark_backbones]
        ]
        for backbone in config.backbones:
            refs += [Ref.to("evaluate_heads", backbone=backbone, variant=name, **pair) for name in config.variants]
            refs.append(Ref.to("safe_retrieval", backbone=backbone, variant=first_variant, **pair))
    refs += wanted_ablations(config)
    refs += [
        Ref.to("deteriorations", backbone=first_backbone, variant=first_variant, dataset=pair.dataset, split=pair.split)
        for pair in config.deteriorated_sets
    ]
    return {"evaluations": sorted(refs, key=str)}


def run(job: Job[Spec]) -> None:
    """Gather and write."""
    from pipeline_lib.evaluation.aggregate import aggregate
    from pipeline_lib.evaluation.metric_rows import write_metric_rows

    rows = aggregate(job.all_inputs("evaluations"))
    with job.writing() as draft:
        write_metric_rows(rows, draft.path / FILES[0])
