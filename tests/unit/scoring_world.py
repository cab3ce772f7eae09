"""A checkpoint with random weights, and small images in class folders, for tests that score images."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from pipeline_lib.backbones.likeness import fixed_image
from pipeline_lib.checkpoints.checkpoint import (
    BACKBONE_PREFIX,
    FIXED_REPRESENTATION,
    BackboneConfig,
    HeadsConfig,
    head_prefix,
    quantiles_name,
    write_checkpoint,
)
from pipeline_lib.checkpoints.model import TimmRepresentation
from pipeline_lib.heads.model import UncertaintyHead
from pipeline_lib.heads.rank_mean import QUANTILES

SEEDS = (0, 3)


def write_random_checkpoint(directory: Path, model: str = "test_resnet", image_size: int = 32) -> Path:
    """Write a checkpoint of a timm model with two heads; returns its folder."""
    torch.manual_seed(0)
    arguments = {"img_size": image_size} if "vit" in model else {}
    network = timm.create_model(model, num_classes=5, **arguments).eval()
    dim = network.num_features
    arrays = {f"{BACKBONE_PREFIX}{name}": value.numpy() for name, value in network.state_dict().items()}
    with torch.inference_mode():
        fixed = fixed_image((3, image_size, image_size))
        arrays[FIXED_REPRESENTATION] = TimmRepresentation(network)(fixed)[0].numpy()
    for seed in SEEDS:
        head = UncertaintyHead(dim, (8,), seed=seed)
        arrays |= {f"{head_prefix(seed)}{name}": value for name, value in head.to_numpy().items()}
        arrays[quantiles_name(seed)] = np.linspace(0.4, 0.9, QUANTILES, dtype=np.float32)
    backbone = BackboneConfig(
        name="small",
        options={"kind": "timm", "model": model, "image_size": image_size},
        dim=dim,
        num_classes=5,
        parameters=sum(values.numel() for values in network.parameters()),
        data_config={
            "input_size": (3, image_size, image_size),
            "mean": (0.5, 0.4, 0.3),
            "std": (0.2, 0.3, 0.4),
            "interpolation": "bicubic",
            "crop_pct": 0.9,
            "crop_mode": "center",
        },
        weights_sha256="0" * 64,
        included=True,
    )
    heads = HeadsConfig(variant="random", hidden=(8,), seeds=SEEDS, training={}, quantiles_of="nothing/test")
    directory.mkdir(parents=True)
    write_checkpoint(directory, backbone, heads, arrays, "---\nlicense: apache-2.0\n---\n# Random weights\n")
    return directory


def write_images(folder: Path, count: int, side: int = 40, classes: tuple[str, ...] = ("cat", "dog")) -> list[str]:
    """Write blurry PNGs in class folders, in turn; returns their sorted names below the folder."""
    generator = np.random.default_rng(0)
    names = [f"{classes[number % len(classes)]}/{number:04d}.png" for number in range(count)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 255, (6, 7, 3), dtype=np.uint8))
        coarse.resize((side + 9, side)).save(folder / name)
    return sorted(names)


def zipped(folder: Path, archive: Path) -> Path:
    """Pack the files of a folder into an archive; returns it."""
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            file.write(path, path.relative_to(folder))
    return archive
