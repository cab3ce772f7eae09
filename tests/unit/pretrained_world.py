"""A small world with checkpoints: rendered characters, a backbone with random weights, two heads, their evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
from safetensors.torch import save_file

from pipeline_lib.backbones import method as method_kind
from pipeline_lib.backbones.artefact import write_weights
from pipeline_lib.backbones.spec import BackboneSpec
from pipeline_lib.config.training import Training
from pipeline_lib.core import artefacts
from pipeline_lib.core.jobs import Job
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.heads import numpy_head
from pipeline_lib.heads.checkpoint import TrainedHead, write_head
from pipeline_lib.heads.model import UncertaintyHead
from pipeline_lib.heads.spec import HeadSpec
from tests import jobs
from tests.unit import worlds

SEEDS = (3, 1)
HIDDEN = (16, 8)
SETS = [{"dataset": "latin", "split": "test"}, {"dataset": "greek", "split": "test"}]
# R-AUROC of each head per set, and of the mean; Recall@1 per set.
R_AUROC = {"latin": (0.7, 0.8), "greek": (0.61, 0.64)}
RECALL = {"latin": 0.75, "greek": 0.5}


@dataclass(frozen=True)
class World:
    """Artefacts of the upstream evaluation set, and the pipeline's own answers for its images."""

    root: Path
    dim: int
    images: ImageDataset
    embedding: np.ndarray  # [n, d], in the dtype of the cache
    uncertainty: dict[int, np.ndarray]  # float32 [n] per seed

    def export(self, name: str = "checkpoint", **changes: Any) -> Path:
        """Write a checkpoint of all heads; changes: of its spec."""
        spec = {"backbone": "mine", "variant": "default", "seeds": list(SEEDS), "include_backbone": True, "sets": SETS}
        return jobs.run(
            "export",
            spec | changes,
            self.root / name,
            backbone=self.root / "mine",
            heads=[self.root / f"seed{seed}" for seed in SEEDS],
            upstream=self.root / "scores",
            metrics=self.root / "metrics.csv",
        )


def world(root: Path, architecture: str = "test_resnet", kind: str = "timm", dtype: str = "float32") -> World:
    """Make all artefacts of a backbone's checkpoint, as the pipeline does.

    kind: `timm`, `custom`, `headless` (`custom`, whose 96 outputs are the representation), or a method.
    """
    worlds.glyphs(root, per_class={"train": 1, "test": 2})
    if kind == "timm":
        jobs.run("backbone", {"name": "mine", "options": timm_options(root, architecture)}, root / "mine")
    elif kind == "custom":
        worlds.backbone(root, architecture=architecture)
    elif kind == "headless":
        worlds.backbone(root, architecture=architecture, num_classes=96, classifier=False)
    else:
        method_backbone(root, architecture, kind)
    images = ImageDataset(root / "latin", "test")
    block = {"split": "test", "view": {"kind": "eval"}, "dtype": dtype, "with_task_loss": False}
    cache = worlds.extract_view(root, root / "eval", **block, samples=[0, len(images)], epochs=[0, 1])
    embedding = cache.read_all("embedding")
    uncertainty = {}
    for seed in SEEDS:
        weights = UncertaintyHead(cache.dim, HIDDEN, seed).to_numpy()
        learnt_on = {"dataset": "latin", "split": "train", "view": "train", "training": Training(hidden=HIDDEN)}
        spec = HeadSpec(backbone="mine", variant="default", seed=seed, **learnt_on)
        head = TrainedHead(seed, weights, ({"episode": 0, "loss": 0.1},))  # never trained
        write_head(Job("head", spec, {}, root / f"seed{seed}"), head)
        uncertainty[seed] = numpy_head.score(weights, embedding)
    write_scores(root / "scores", images.sample_id, uncertainty)
    pd.DataFrame(metric_rows()).to_csv(root / "metrics.csv", index=False)
    return World(root, cache.dim, images, embedding, uncertainty)


def write_scores(directory: Path, sample_id: np.ndarray, uncertainty: dict[int, np.ndarray]) -> None:
    """Write the heads' evaluation of the upstream set, as far as an export reads it."""
    spec = {"backbone": "mine", "variant": "default", "seeds": list(SEEDS), "is_upstream": True}
    columns = {"sample_id": sample_id} | {f"uncertainty_seed{seed}": values for seed, values in uncertainty.items()}
    with artefacts.writing(directory, "evaluate_heads", spec) as draft:
        pd.DataFrame(columns).to_parquet(draft.path / "scores.parquet")


def timm_options(root: Path, architecture: str) -> dict[str, Any]:
    """Write random weights; returns the options of a `timm` backbone that has them."""
    torch.manual_seed(0)
    size = {"img_size": 32} if "vit" in architecture else {}
    network = timm.create_model(architecture, num_classes=62, **size)
    save_file(network.state_dict(), root / "weights.safetensors")
    options = {"kind": "timm", "model": architecture, "checkpoint": str(root / "weights.safetensors")}
    return options | {"num_classes": 62, "image_size": 32}


def method_backbone(root: Path, architecture: str, method: str) -> None:
    """Write a backbone artefact as a method leaves it, with random weights."""
    section = {"kind": "method", "architecture": architecture, "image_size": 32, "method": {"kind": method}}
    options = method_kind.Options.model_validate(section)
    encoder = method_kind.build(options, 62)
    job = Job("method", BackboneSpec(name="mine", options=options), {}, root / "mine")
    write_weights(job, encoder, method_kind.data_config(options, encoder))


def metric_rows() -> list[dict[str, Any]]:
    """Return what `metrics.csv` says of the backbone, and of another that must not get into its card."""
    rows = []
    for dataset, values in R_AUROC.items():
        common = {"dataset": dataset, "split": "test", "n": 124}
        for seed, value in zip(SEEDS, values, strict=True):
            head = {"backbone": "mine", "method": "head", "variant": "default", "seed": seed, "metric": "auroc_correct"}
            rows.append({**common, **head, "value": value})
            rows.append({**common, **head, "backbone": "other", "value": 0.1})
        recall = {"backbone": "mine", "method": "representation", "variant": "", "seed": None, "metric": "r1"}
        rows.append({**common, **recall, "value": RECALL[dataset]})
    return rows
