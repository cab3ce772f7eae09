"""Small worlds that tests share: a rendered dataset and a backbone from the user's own code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from pipeline_lib.core import artefacts
from pipeline_lib.core.jobs import Job, Settings
from pipeline_lib.features import store
from pipeline_lib.features.blocks import block_ranges, block_wildcards
from pipeline_lib.features.cache import FeatureCache
from pipeline_lib.features.rows import digest_of_rows
from pipeline_lib.features.spec import BlockSpec
from tests.jobs import run

FACTORY = """
import timm
from torch import nn


def build(architecture, num_classes, image_size=32):
    size = {"img_size": image_size} if "vit" in architecture else {}
    return timm.create_model(architecture, num_classes=num_classes, **size)


def not_a_network():
    return 3
"""


def block_name(samples: Sequence[int], epochs: Sequence[int]) -> str:
    """Return the folder name of a block."""
    return "samples-{start}-{stop}_epochs-{first}-{last}".format(**block_wildcards(samples, epochs))


def glyphs(directory: Path, name: str = "latin", per_class: dict[str, int] | None = None, **options: Any) -> Path:
    """Write a small dataset of rendered characters; returns its artefact's folder."""
    settings = {"kind": "glyphs", "script": "latin", "image_size": 32, "seed": 0, **options}
    settings["per_class"] = per_class or {"train": 2, "test": 1}
    return run("dataset", {"name": name, "options": settings, "data_dir": str(directory)}, directory / name)


def custom_options(
    directory: Path, architecture: str = "test_resnet", num_classes: int = 62, classifier: str | bool = "fc"
) -> dict[str, Any]:
    """Write a factory and a checkpoint with random weights; returns the options of a `custom` backbone."""
    import timm

    (directory / "my_networks.py").write_text(FACTORY)
    torch.manual_seed(0)
    size = {"img_size": 32} if "vit" in architecture else {}
    network = timm.create_model(architecture, num_classes=num_classes, **size)
    checkpoint = directory / f"{architecture}.safetensors"
    save_file({f"module.{name}": value for name, value in network.state_dict().items()}, checkpoint)
    return {
        "kind": "custom",
        "factory": "my_networks:build",
        "code_dir": str(directory),
        "arguments": {"architecture": architecture, "num_classes": num_classes},
        "checkpoint": str(checkpoint),
        "key_prefix": "module.",
        "classifier": classifier,
        "image_size": 32,
    }


def backbone(directory: Path, name: str = "mine", **more: Any) -> Path:
    """Write a backbone of kind `custom` with random weights; returns its artefact's folder."""
    options = custom_options(directory, **more)
    return run("backbone", {"name": name, "options": options}, directory / name)


def block_spec(**changes: Any) -> dict[str, Any]:
    """Return the spec of a block of augmented training images."""
    return {
        "backbone": "mine",
        "dataset": "latin",
        "split": "train",
        "view": {
            "kind": "augmented",
            "seed": 0,
            "scale": [0.3, 1.0],
            "ratio": [0.75, 1.33],
            "horizontal_flip": 0.5,
            "color_jitter": 0.4,
            "color_jitter_probability": None,
            "interpolation": "random",
        },
        "with_task_loss": True,
        "format": "zarr",
        "dtype": "float16",
        "precision": "float32",
        "device": "cpu",
        "batch_size": 16,
        "chunk_rows": 50,
        "threads": 1,
        "samples": [0, 124],
        "epochs": [0, 3],
        **changes,
    }


def extract_view(
    world: Path, view_dir: Path, block_samples: int = 124, block_epochs: int = 3, workers: int = 0, **changes: Any
) -> FeatureCache:
    """Extract a view in blocks of the given size, record them, and open the cache.

    changes: of `block_spec`; the ends of its `samples` and `epochs` say how many there are.
    """
    block = block_spec(**changes)
    (_, samples), (_, epochs) = block["samples"], block["epochs"]
    made_from = {name: world / block[name] for name in ("dataset", "backbone")}
    folders = []
    for epoch_range in block_ranges(epochs, block_epochs):
        for sample_range in block_ranges(samples, block_samples):
            spec = block | {"samples": sample_range, "epochs": epoch_range}
            folder = view_dir / "blocks" / block_name(sample_range, epoch_range)
            folders.append(run("features", spec, folder, Settings(workers=workers), **made_from))
    run("cache", cache_spec(block), view_dir / "cache", **made_from, blocks=folders)
    return FeatureCache(view_dir)


def stored_view(
    view_dir: Path, embedding: np.ndarray, storage: str = "zarr", block_rows: int = 300, chunk_rows: int = 128
) -> Path:
    """Write representations [epochs, rows, dim] as the cache of a view, one block per epoch and range of rows."""
    epochs, rows, dim = embedding.shape
    made_from = {"dataset": view_dir.parent / "latin", "backbone": view_dir.parent / "mine"}
    with artefacts.writing(made_from["dataset"], "dataset", {}) as draft:
        draft.facts.update(splits={"train": rows}, skip_unreadable=0)
    with artefacts.writing(made_from["backbone"], "backbone", {}):
        pass
    block = block_spec(with_task_loss=False, format=storage, chunk_rows=chunk_rows, epochs=[0, epochs])
    inputs = {name: (path,) for name, path in made_from.items()}
    folders = []
    for epoch in range(epochs):
        for start, stop in block_ranges(rows, block_rows):
            spec = BlockSpec.model_validate(block | {"samples": (start, stop), "epochs": (epoch, epoch + 1)})
            arrays = {
                "embedding": np.ascontiguousarray(embedding[epoch : epoch + 1, start:stop]),
                "class_entropy": np.ones((1, stop - start), np.float32),
                "sample_id": np.arange(start, stop) * 2,  # a split may have every other image of its dataset
                "label": np.arange(start, stop) % 7,
                "epoch": np.array([epoch]),
            }
            folders.append(view_dir / "blocks" / block_name(spec.samples, spec.epochs))
            with Job("features", spec, inputs, folders[-1]).writing() as draft:
                store.write_arrays(draft.path, storage, arrays, chunk_rows)
                draft.facts.update(
                    rows=stop - start,
                    dim=dim,
                    arrays=sorted(arrays),
                    skipped=[],
                    rows_digest=f"{digest_of_rows(arrays):032x}",
                )
    run("cache", cache_spec(block), view_dir / "cache", **made_from, blocks=folders)
    return view_dir


def cache_spec(block: dict[str, Any]) -> dict[str, Any]:
    """Return the spec of the cache with the rows of a block, from the first epoch on."""
    rows = {name: value for name, value in block.items() if name not in ("samples", "format", "chunk_rows")}
    return rows | {"epochs": block["epochs"][1]}
