"""A backbone artefact: weights and everything needed to rebuild the frozen model around them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from pipeline_lib.backbones.base import Backbone, Encoder
from pipeline_lib.backbones.likeness import fixed_image
from pipeline_lib.backbones.spec import BackboneSpec, read_manifest
from pipeline_lib.backbones.weights import load_into
from pipeline_lib.config import kinds
from pipeline_lib.core.artefacts import file_sha256
from pipeline_lib.core.jobs import Job

WEIGHTS = "weights.safetensors"
# Of `likeness.fixed_image`, float32 [d]: heads that are passed on without these weights know them by it.
FIXED_REPRESENTATION = "fixed_representation.npy"
CURVE = "curve.jsonl"


def write_weights(
    job: Job[BackboneSpec],
    encoder: Encoder,
    data_config: Mapping[str, Any],
    curve: Sequence[Mapping[str, float | None]] = (),
    **more_facts: Any,
) -> None:
    """Write an encoder with its weights as a backbone artefact.

    curve: a record per epoch of its training, if there was one.
    """
    encoder.network.eval()
    with torch.inference_mode():
        embedding, logits = encoder(fixed_image(data_config["input_size"]))
    with job.writing() as draft:
        state = {name: value.contiguous().clone() for name, value in encoder.network.state_dict().items()}
        save_file(state, draft.path / WEIGHTS)
        np.save(draft.path / FIXED_REPRESENTATION, embedding[0].float().numpy())
        if curve:
            lines = "".join(json.dumps(record) + "\n" for record in curve)
            (draft.path / CURVE).write_text(lines, encoding="utf-8")
        draft.facts.update(
            dim=embedding.shape[1],
            num_classes=logits.shape[1],
            parameters=sum(parameter.numel() for parameter in encoder.network.parameters()),
            data_config=data_config,
            weights_sha256=file_sha256(draft.path / WEIGHTS),
            **more_facts,
        )


def open_backbone(directory: Path, device: torch.device | str = "cpu", precision: str = "float32") -> Backbone:
    """Open a backbone artefact as a frozen `Backbone` on a device, computing in `precision`."""
    manifest = read_manifest(directory)
    options, facts = BackboneSpec.model_validate(manifest.spec).options, manifest.facts
    encoder = kinds.load("backbones", options.kind).build(options, facts["num_classes"])
    path = Path(directory) / WEIGHTS
    load_into(encoder.network, load_file(path), path)
    return Backbone(
        encoder,
        facts["data_config"],
        facts["dim"],
        facts["num_classes"],
        manifest,
        torch.device(device),
        precision,
    )
