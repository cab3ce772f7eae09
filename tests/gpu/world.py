"""What the lines of the GPU check share: their sizes, photographs made here, networks with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from safetensors.torch import save_file

from pipeline_lib.core.jobs import Settings
from tests import jobs
from tests.benchmarks.benchmark_extraction import write_photos

PHOTOS, MANY_PHOTOS = "photos", "many_photos"
CLASSES = 2
_SEED = 0


@dataclass(frozen=True)
class Sizes:
    """How much is computed: of the check, or of a try of its code on a CPU.

    networks: a vision transformer and a convolutional network, by timm's names; `small`: one to train.
    rows, steps: of heads in training. gallery: rows that are searched. seconds, all_seconds: what a line and
    all of them may take, since machines with a GPU are lent by the minute.
    """

    networks: tuple[str, str] = ("vit_small_patch16_224", "resnet50")
    small: str = "resnet18"
    side: int = 224
    photos: int = 96
    many_photos: int = 384
    views: int = 20
    batch: int = 64
    dim: int = 768
    hidden: int = 512
    head_batch: int = 2048
    steps: int = 96
    gallery: int = 20_000
    seconds: float = 120.0
    all_seconds: float = 590.0


TRY = Sizes(("test_vit", "test_resnet"), "test_resnet", 32, 32, 16, 2, 8, 16, 16, 64, 32, 300, 3600)


class Check(NamedTuple):
    """What is checked: the device, "cuda" or "cpu", its sizes, and a folder for everything that is made."""

    device: str
    sizes: Sizes
    folder: Path

    def settings(self) -> Settings:
        """How jobs decode."""
        return Settings(workers=0 if self.sizes == TRY else 4)


class Result(NamedTuple):
    """A line of the table: what was measured, its bound in words, and whether it holds."""

    measured: str
    bound: str
    ok: bool


def at_most(measured: float, bound: float) -> Result:
    """Return a line whose number has a largest value."""
    return Result(f"{measured:.2g}", f"at most {bound:g}", bool(measured <= bound))


def at_least(measured: float, bound: float) -> Result:
    """Return a line whose number has a smallest value."""
    return Result(f"{measured:.5f}", f"at least {bound:g}", bool(measured >= bound))


def shown(measured: str) -> Result:
    """Return a line that has no bound."""
    return Result(measured, "none: shown", True)


def make_world(check: Check) -> None:
    """Write two datasets of photographs and the backbones, all as a run would."""
    for name, count in ((PHOTOS, check.sizes.photos), (MANY_PHOTOS, check.sizes.many_photos)):
        archive = check.folder / f"{name}.zip"
        write_photos(archive, count)
        options = {"kind": "archive", "path": str(archive), "split_by": {"train": 0.5, "test": 0.5}}
        jobs.run("dataset", {"name": name, "options": options, "data_dir": str(check.folder)}, check.folder / name)
    for model in {*check.sizes.networks, check.sizes.small}:
        spec = {"name": model, "options": backbone_options(check, model)}
        jobs.run("backbone", spec, check.folder / model)


def backbone_options(check: Check, model: str) -> dict[str, Any]:
    """Write random weights of a timm model; returns the options of a backbone that has them."""
    torch.manual_seed(_SEED)
    size = {"img_size": check.sizes.side} if "vit" in model else {}
    weights = check.folder / f"{model}.safetensors"
    save_file(timm.create_model(model, num_classes=CLASSES, **size).state_dict(), weights)
    options = {"kind": "timm", "model": model, "checkpoint": str(weights)}
    return options | {"num_classes": CLASSES, "image_size": check.sizes.side}


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the root mean square of the error, as a share of that of what is expected."""
    expected = expected.astype(np.float64)
    return float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))
