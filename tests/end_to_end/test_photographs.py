"""photographs.yaml from TFDS's records to its tables, on stand-ins of the same names, classes and form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data.imagenet_info import ImageNetInfo

from pipeline_lib.config.load import parse_config
from pipeline_lib.core.jobs import Ref
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.stages.graph import Graph
from pipeline_lib.tables.summary import read_metrics
from tests.jobs import make
from tests.unit.dataset_worlds import encoded
from tests.unit.test_datasets_tfds import prepare_set

ROOT = Path(__file__).parents[2]
IMAGENETTE = ["n01440764", "n02102040", "n02979186", "n03000684", "n03028079"]
IMAGENETTE += ["n03394916", "n03417042", "n03425413", "n03445777", "n03888257"]
PER_CLASS = 6


def stand_ins(config: dict[str, Any], data_dir: Path) -> None:
    """Prepare each set of the config with few small pictures, and let the config take all of them."""
    draw = np.random.default_rng(0)
    for options in config["datasets"].values():
        classes = IMAGENETTE if options["name"] == "imagenette" else [f"class {n}" for n in range(5)]
        taken = {name: split.partition("[")[0] for name, split in options["splits"].items()}
        rows = {
            split: [
                (n % len(classes), encoded(Image.fromarray(draw.integers(0, 255, (40, 48, 3), np.uint8)), "PNG"))
                for n in range(PER_CLASS * len(classes))
            ]
            for split in taken.values()
        }
        prepare_set(data_dir, rows, name=options["name"], config=options.get("config"), classes=classes)
        options["splits"] = taken


def untrained(config: dict[str, Any], folder: Path) -> None:
    """Give each backbone a local checkpoint with random weights, and small images."""
    for name, options in config["backbones"].items():
        options |= {"checkpoint": str(folder / f"{name}.safetensors"), "image_size": 32}
        torch.manual_seed(0)
        size = {"img_size": 32} if name.startswith("vit") else {}
        save_file(timm.create_model(options["model"], **size).state_dict(), options["checkpoint"])


@pytest.mark.slow
def test_a_world_of_photographs_from_records_to_metrics(tmp_path):
    config = yaml.safe_load((ROOT / "workflow/configs/photographs.yaml").read_text())
    stand_ins(config, tmp_path / "raw")
    untrained(config, tmp_path)
    config |= {"results_dir": str(tmp_path / "results"), "data_dir": str(tmp_path / "raw"), "seeds": [1]}
    config["training"] |= {"batch_size": 16, "episode_samples": 60}
    config["evaluation"] |= {"bootstrap": {"resamples": 10}, "deteriorated": []}
    config["features"]["workers"] = 0
    graph = Graph(parse_config(config), tmp_path / "results", ROOT / "workflow/published")
    make(graph, Ref.to("metrics"))
    found = read_metrics(tmp_path / "results/metrics.csv")
    found = found[found["metric"] == "auroc_correct"]
    assert set(found["dataset"]) >= {"imagenette", "caltech101", "pets", "dtd", "cifar10"}
    assert set(found["variant"]) >= {"default", "probe"}
    # Each class was scored by its own among the thousand outputs, found by its WordNet id.
    cache = FeatureCache(tmp_path / "results/features/resnet18/imagenette/test/eval")
    weights = load_file(config["backbones"]["resnet18"]["checkpoint"])
    embedding = torch.from_numpy(cache.read_all("embedding")).float()
    logits = embedding @ weights["fc.weight"].T + weights["fc.bias"]
    outputs = list(ImageNetInfo("imagenet1k").label_names())
    label = torch.tensor([outputs.index(IMAGENETTE[n]) for n in cache.read_all("label")])
    expected = torch.nn.functional.cross_entropy(logits, label, reduction="none")
    np.testing.assert_allclose(cache.read_all("task_loss"), expected, atol=2e-3)
