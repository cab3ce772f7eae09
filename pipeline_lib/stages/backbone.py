"""Load or train a backbone: writes weights.safetensors and manifest.json."""

from __future__ import annotations

from pathlib import Path

from pipeline_lib.backbones.spec import BackboneSpec, components, is_trained_here, made_by
from pipeline_lib.config import kinds
from pipeline_lib.config.config import Config
from pipeline_lib.core.jobs import Input, Job, Ref, Refs

INPUTS = (Input("upstream", "dataset artefact to train on (kind `trained`)", required=False),)
OUTPUT = "backbones/{backbone}"
Spec = BackboneSpec


def resolve(config: Config, backbone: str) -> Ref:
    """Return the stage that makes the backbone: this one, or `method`."""
    return Ref.to(made_by(config, backbone), backbone=backbone)


def inputs(config: Config, backbone: str) -> Refs:
    """Return the artefacts that a job reads."""
    upstream = Ref.to("dataset", dataset=config.upstream.dataset)
    return {"upstream": upstream if is_trained_here(config, backbone) else None}


def plugins(config: Config, backbone: str) -> list[str]:
    """Return the components of the code that are chosen by name."""
    trained_on = [f"datasets.{config.datasets[config.upstream.dataset].kind}"]
    return components(config.backbone(backbone)) + (trained_on if is_trained_here(config, backbone) else [])


def sources(spec: BackboneSpec) -> list[Path]:
    """Return the user's files that the backbone is made from."""
    return kinds.load("backbones", spec.options.kind).watched_files(spec.options)


def run(job: Job[BackboneSpec]) -> None:
    """Load or train, and write."""
    from pipeline_lib.backbones.artefact import write_backbone

    write_backbone(job)
