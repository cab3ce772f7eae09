"""The rows that heads learn from: the cache of a view, with the task loss that the recipe names."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_lib.core.errors import PipelineError
from pipeline_lib.stages.arguments import add_path

if TYPE_CHECKING:
    from pipeline_lib.core.artefacts import Manifest
    from pipeline_lib.heads.stream import FeatureRows


def add_task_loss(parser: argparse.ArgumentParser) -> None:
    """Add the option `--task-loss`."""
    add_path(
        parser, "--task-loss", "task loss of the view, where training.task_loss is knn or contrastive", required=False
    )


def training_rows(
    spec: Mapping[str, Any], view_dir: Path, task_loss_dir: Path | None
) -> tuple[FeatureRows, dict[str, Manifest]]:
    """Return the rows, and the manifests of what they are read from, by name.

    spec: of a head. Raises `PipelineError` when the recipe needs a task loss that isn't given, or doesn't need it.
    """
    from pipeline_lib.features.cache import FeatureCache
    from pipeline_lib.task_losses.store import WithTaskLoss

    task_loss = spec["training"].get("task_loss") or "cross_entropy"
    if (task_loss == "cross_entropy") != (task_loss_dir is None):
        advice = "leave --task-loss out" if task_loss == "cross_entropy" else "give its folder as --task-loss"
        raise PipelineError(f"training.task_loss is {task_loss}; {advice}")
    cache = FeatureCache(view_dir)
    if task_loss_dir is None:
        return cache, {"features": cache.manifest}
    expected = {"backbone": spec["backbone"], "view": spec["view"], "task_loss": task_loss}
    rows = WithTaskLoss(cache, task_loss_dir, expected)
    return rows, {"features": cache.manifest, "task_loss": rows.manifest}
