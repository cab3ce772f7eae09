"""The state of a training, written after each epoch so that a kill costs the epoch in progress alone.

It is an artefact beside the output, `<output>.resume`: a damaged or half written one, or one of another spec, of other
inputs or of another torch, is not used.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.core.errors import ArtefactError

_STATE = "state.pt"


def resume_folder(output: Path) -> Path:
    """Return where the state of the training of an artefact lies."""
    return output.with_name(f"{output.name}.resume")


def write_state(
    directory: Path, stage: str, spec: Mapping[str, Any], inputs: Mapping[str, Manifest], state: Mapping[str, Any]
) -> None:
    """Write a state in place of the one before.

    state: tensors and plain values. inputs: manifests of what is trained on, by name.
    """
    with artefacts.writing(directory, stage, spec) as draft:
        for name, manifest in inputs.items():
            draft.add_input(name, manifest)
        draft.facts["software"] = _software()
        torch.save(dict(state), draft.path / _STATE)


def read_state(
    directory: Path, stage: str, spec: Mapping[str, Any], inputs: Mapping[str, Manifest]
) -> dict[str, Any] | None:
    """Return the state of an interrupted training of the same spec from the same inputs, or None (saying why)."""
    if not directory.exists():
        return None
    try:
        manifest = artefacts.read(directory, stage, spec)
    except ArtefactError as error:
        print(f"starting anew instead of going on: {error}", file=sys.stderr)
        return None
    same_inputs = manifest.inputs == {name: each.digest for name, each in inputs.items()}
    if not same_inputs or manifest.facts != {"software": _software()}:
        print(f"starting anew instead of going on: {directory} has other inputs or another torch", file=sys.stderr)
        return None
    return torch.load(directory / _STATE, map_location="cpu", weights_only=True)


def _software() -> dict[str, str]:
    return artefacts.software_versions("torch", "timm")
