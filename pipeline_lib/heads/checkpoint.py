"""A trained head on disk: `head.safetensors`, `head.json` and `curve.jsonl`, read without torch.

Nothing in the files differs between two runs of the same training: equal training gives equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from pipeline_lib.core import artefacts
from pipeline_lib.core.artefacts import Manifest
from pipeline_lib.core.errors import ArtefactError
from pipeline_lib.core.jobs import Job
from pipeline_lib.heads.spec import HeadSpec

STAGE = "head"
# What an episode did to a head: `episode` (from 0), `images` (seen by its end), `learning_rate`, and over the episode
# the mean training `loss` and `order_accuracy`, the share of pairs ordered like their task losses (chance 0.5). No
# clock time: equal runs give equal records.
Record = Mapping[str, float]


@dataclass(frozen=True)
class TrainedHead:
    """A head and how its training went."""

    seed: int
    weights: Mapping[str, np.ndarray]  # float32: `layers.0.weight` [hidden, d], `layers.0.bias` [hidden], ...
    curve: tuple[Record, ...]

    @property
    def dim(self) -> int:
        """Width of the representations that the head reads."""
        return self.weights["layers.0.weight"].shape[1]

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return tuple(len(self.weights[f"layers.{i}.bias"]) for i in range(len(self.weights) // 2 - 1))


def write_head(job: Job[HeadSpec], head: TrainedHead) -> None:
    """Write the artefact of one head."""
    with job.writing() as draft:
        draft.facts = {"dim": head.dim, "hidden": list(head.hidden), "seed": head.seed, "last_episode": head.curve[-1]}
        save_file(dict(head.weights), draft.path / "head.safetensors")
        description = {
            "architecture": {"dim": head.dim, "hidden": list(head.hidden)},
            "seed": head.seed,
            "training": job.spec.training.model_dump(mode="json"),
        }
        (draft.path / "head.json").write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")
        (draft.path / "curve.jsonl").write_text("".join(json.dumps(record) + "\n" for record in head.curve))


def read_head(directory: Path, expected: Mapping[str, Any] | None = None) -> tuple[TrainedHead, Manifest]:
    """Read and verify the artefact of one head; `expected` are keys of the spec that must match.

    Raises `ArtefactError` naming the file that is missing, damaged or not what was asked for.
    """
    manifest = artefacts.read(directory, stage=STAGE, expected=expected)
    weights = load_file(Path(directory) / "head.safetensors")
    description = json.loads((Path(directory) / "head.json").read_text())
    curve = tuple(json.loads(line) for line in (Path(directory) / "curve.jsonl").read_text().splitlines())
    head = TrainedHead(description["seed"], weights, curve)
    found = {"dim": head.dim, "hidden": list(head.hidden)}
    if found != description["architecture"]:
        raise ArtefactError(f"{directory}: head.safetensors has {found}, but head.json {description['architecture']}")
    return head, manifest
