"""Extract blocks of representations: decode each image once, draw all its views and epochs, run the backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline_lib.backbones.spec import components, made_by
from pipeline_lib.core.jobs import Input, Job, Ref, Refs
from pipeline_lib.features.spec import BlockSpec as Spec

if TYPE_CHECKING:
    from pipeline_lib.config.config import Config

INPUTS = (
    Input("dataset", "the dataset"),
    Input("backbone", "the backbone"),
    Input("upstream", "the upstream dataset, where the outputs of the classifier that count are its classes", False),
)
OUTPUT = "features/{backbone}/{dataset}/{split}/{view}/blocks/samples-{start}-{stop}_epochs-{first}-{last}"
SETTINGS = ("workers",)


def inputs(config: Config, backbone: str, dataset: str, **block: str) -> Refs:
    """Return the artefacts that a job reads."""
    return {
        "dataset": Ref.to("dataset", dataset=dataset),
        "backbone": Ref.to(made_by(config, backbone), backbone=backbone),
        "upstream": Ref.to("dataset", dataset=config.upstream.dataset) if _counts_classes(config, backbone) else None,
    }


def _counts_classes(config: Config, backbone: str) -> bool:
    return config.upstream.loss_over == "classes" and config.has_classifier(backbone)


def plugins(config: Config, backbone: str, dataset: str, **block: str) -> list[str]:
    """Return the components that are chosen by name: the kinds of the dataset and the backbone, and its method."""
    return [f"datasets.{config.datasets[dataset].kind}", *components(config.backbone(backbone))]


def together(spec: Spec) -> tuple[object, ...]:
    """Return what blocks have in common that one process extracts, each image decoded once."""
    return spec.backbone, spec.dataset, spec.split, spec.samples


def run(job: Job[Spec]) -> None:
    """Extract a block."""
    run_together([job])


def run_together(jobs: Sequence[Job[Spec]]) -> None:
    """Extract blocks of the same images."""
    from pipeline_lib.core.progress import Progress
    from pipeline_lib.features.extract import extract_blocks

    specs = [job.spec for job in jobs]
    total = sum((spec.samples[1] - spec.samples[0]) * (spec.epochs[1] - spec.epochs[0]) for spec in specs)
    views = ", ".join(dict.fromkeys(spec.view.kind for spec in specs))
    with Progress(total, "images", f"{specs[0].backbone} on {specs[0].dataset}, {views}") as progress:
        extract_blocks(jobs, progress.advance)
