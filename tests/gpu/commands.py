"""What users do on a device: a network becomes a checkpoint, which is loaded and scores images."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pandas as pd
import torch

from pipeline_lib.checkpoints.loading import load
from pipeline_lib.core.device import choose_device
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.fitting import fit_heads, recipe_of, work_folder
from tests.gpu.world import PHOTOS, Check, Result, at_most, backbone_options

# Ranks of uncertainties among those of the held-out images, averaged over two heads; float32 through a small network.
_SCORES = 1e-3


def fitted(check: Check) -> Result:
    """A network becomes a checkpoint: every stage on the way to it."""
    out = check.folder / "checkpoint"
    recipe = recipe_of(device=check.device, epochs=2, steps=8, workers=check.settings().workers, seeds=(1, 2))
    with work_folder(out, None) as folder:
        fit_heads(backbone_options(check, check.sizes.small), check.folder / f"{PHOTOS}.zip", out, recipe, folder)
    return Result("written", "written", (out / "model.safetensors").exists())


def loaded(check: Check) -> Result:
    """A loaded checkpoint says of images what it says on the CPU."""
    choose_device(check.device)  # `load` leaves the user's process as it is, where convolutions may be TensorFloat-32
    models = [load(check.folder / "checkpoint", device=device) for device in (check.device, "cpu")]
    images = ImageDataset(check.folder / PHOTOS, "test")
    pixels = torch.stack([models[1].transform.pixels(images.image(position)) for position in range(8)])
    found, expected = (model.from_pixels(pixels)[1].cpu() for model in models)
    return at_most(float((found / expected - 1).abs().max()), _SCORES)


def scored(check: Check) -> Result:
    """Two `score` commands at once: one waits for the other's GPU, and both write the CPU's uncertainties."""
    commands = [_score(check, check.device, name) for name in ("one", "other")]
    said = [command.communicate()[1] for command in commands]
    _score(check, "cpu", "cpu").communicate()
    if any(command.returncode for command in commands):
        print(*said, sep="\n")
        return Result("a command failed", "both end well", False)
    one, other, expected = (
        pd.read_parquet(check.folder / f"{name}.parquet")["uncertainty"] for name in ("one", "other", "cpu")
    )
    waited = sum("waiting for a GPU" in text for text in said)
    error = float((one / expected - 1).abs().max())
    as_it_should = waited == (check.device == "cuda") and one.equals(other) and error <= _SCORES
    return Result(f"{waited} waited, {error:.2g}", f"1 waits, at most {_SCORES:g}", as_it_should)


def _score(check: Check, device: str, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipeline_lib", "score", str(check.folder / f"{PHOTOS}.zip"), "--workers", "0"]
    command += ["--checkpoint", str(check.folder / "checkpoint"), "--device", device]
    command += ["--out", str(check.folder / f"{name}.parquet")]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


LINES: dict[str, Callable[[Check], Result]] = {
    "fit: from images to a checkpoint": fitted,
    "load: uncertainties": loaded,
    "score: two jobs, one device": scored,
}
