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
from pipeline_lib.backbones.artefact import write_backbone, write_weights
from pipeline_lib.config.training import Training
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.evaluation.metric_rows import write_metric_rows
from pipeline_lib.evaluation.scores import write_evaluation
from pipeline_lib.evaluation.scoring import score_cache
from pipeline_lib.features.blocks import block_name
from pipeline_lib.features.cache import FeatureCache, write_cache
from pipeline_lib.features.extract import extract_block
from pipeline_lib.heads.checkpoint import TrainedHead, write_head
from pipeline_lib.heads.model import UncertaintyHead
from pipeline_lib.pretrained.export import export_checkpoint
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
        heads = {seed: self.root / f"seed{seed}" for seed in SEEDS}
        scores, metrics, out = self.root / "scores", self.root / "metrics.csv", self.root / name
        export_checkpoint(spec | changes, self.root / "mine", heads, scores, metrics, out)
        return out


def world(root: Path, architecture: str = "test_resnet", kind: str = "timm", dtype: str = "float32") -> World:
    """Make all artefacts of a backbone's checkpoint, as the pipeline does.

    kind: `timm`, `custom`, `headless` (`custom`, whose 96 outputs are the representation), or a method.
    """
    worlds.glyphs(root, per_class={"train": 1, "test": 2})
    if kind == "timm":
        write_backbone({"name": "mine", "options": timm_options(root, architecture)}, None, root / "mine")
    elif kind == "custom":
        worlds.backbone(root, architecture=architecture)
    elif kind == "headless":
        worlds.backbone(root, architecture=architecture, num_classes=96, classifier=None)
    else:
        method_backbone(root, architecture, kind)
    images = ImageDataset(root / "latin", "test")
    block = worlds.block_spec(split="test", view={"kind": "eval"}, dtype=dtype)
    block |= {"samples": [0, len(images)], "epochs": [0, 1], "with_task_loss": False}
    view = root / "eval"
    extract_block(block, root / "latin", root / "mine", view / "blocks" / block_name(tuple(block["samples"]), (0, 1)))
    shared = {key: value for key, value in block.items() if key not in ("samples", "epochs")}
    record = {"block": shared, "epochs": 1, "block_samples": len(images), "block_epochs": 1}
    write_cache(record, root / "latin", view)
    cache = FeatureCache(view)
    heads = {}
    for seed in SEEDS:
        weights = UncertaintyHead(cache.dim, HIDDEN, seed).to_numpy()
        heads[seed] = TrainedHead(seed, weights, ({"episode": 0, "loss": 0.1},))
        recipe = Training(hidden=HIDDEN)
        spec = {"backbone": "mine", "variant": "default", "seed": seed, "training": recipe.model_dump(mode="json")}
        write_head(root / f"seed{seed}", spec, heads[seed], recipe)
    uncertainty = score_cache(heads, cache)
    columns = {"sample_id": images.sample_id} | {f"uncertainty_seed{seed}": u for seed, u in uncertainty.items()}
    spec = {"backbone": "mine", "variant": "default", "is_upstream": True}
    write_evaluation(root / "scores", spec, columns, metric_rows(), {})
    write_metric_rows(pd.DataFrame(metric_rows()), root / "metrics.csv")
    return World(root, cache.dim, images, cache.read_all("embedding"), uncertainty)


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
    spec = {"name": "mine", "options": options.model_dump(mode="json")}
    write_weights(spec, encoder, method_kind.data_config(options, encoder), [], {}, root / "mine")


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
