"""The state of a job under way, from which the same job goes on after a kill.

It is an artefact beside the output, `<output>.resume`. One that is damaged, or was made by another spec, other inputs,
other code or another torch, is not used.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import torch

from pipeline_lib.core import artefacts, ownership
from pipeline_lib.core.errors import ArtefactError
from pipeline_lib.core.jobs import Job
from pipeline_lib.core.software import versions

_FILE = "state.pt"


class SavedState:
    """Where the state of a job lies until the job is done."""

    def __init__(self, job: Job[Any]) -> None:
        output = job.output.with_name(f"{job.output.name}.resume")
        self._job = dataclasses.replace(job, stage=f"{job.stage}_resume", output=output)

    def read(self) -> dict[str, Any] | None:
        """Return the state that the same job left when it was interrupted, or None; says why one is not used."""
        if not self._job.output.exists():
            return None
        try:
            manifest = artefacts.read(self._job.output)
        except ArtefactError as error:
            print(f"starting anew instead of going on: {error}", file=sys.stderr)
            return None
        if not self._job.is_done() or manifest.facts != {"software": _software()}:
            print(f"starting anew instead of going on: {self._job.output} is of another job", file=sys.stderr)
            return None
        return torch.load(self._job.output / _FILE, map_location="cpu", weights_only=True)

    def write(self, state: Mapping[str, Any]) -> None:
        """Write a state, tensors and plain values, in place of the one before."""
        with self._job.writing() as draft:
            draft.facts["software"] = _software()
            torch.save(dict(state), draft.path / _FILE)

    def remove(self) -> None:
        """Remove the state of a job that is done."""
        if ownership.is_artefact(self._job.output):
            shutil.rmtree(self._job.output, ignore_errors=True)


def _software() -> dict[str, str]:
    return versions("torch", "timm")
