"""How fast a block is extracted from photographs, against the bare forward pass in the same type.

The photographs are made here, of ordinary size and compression; give an archive with one folder per class to
use real ones: python -m tests.benchmarks.benchmark_extraction --photos photos.zip
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image, ImageFilter
from safetensors.torch import save_file

from pipeline_lib.backbones.artefact import open_backbone
from pipeline_lib.core.jobs import Settings
from pipeline_lib.datasets.images import ImageDataset
from tests.jobs import run
from tests.unit.worlds import block_spec

MODEL, EPOCHS, BATCH = "vit_tiny_patch16_224", 10, 64
MINIMUM_SHARE = 0.75


def write_photos(path: Path, count: int) -> None:
    """Write an archive of JPEGs of 500 x 375 pixels with the detail, and so the size, of photographs."""
    generator = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            coarse = Image.fromarray(generator.integers(0, 255, (24, 32, 3), dtype=np.uint8)).resize((500, 375))
            fine = Image.fromarray(generator.integers(0, 255, (375, 500, 3), dtype=np.uint8))
            photo = Image.blend(coarse, fine.filter(ImageFilter.GaussianBlur(1)), 0.4)
            data = io.BytesIO()
            photo.save(data, "JPEG", quality=92)
            archive.writestr(f"class{number % 2}/{number:04d}.jpg", data.getvalue())


def forward_seconds(directory: Path, precision: str, batches: int) -> float:
    """Return the seconds of the bare forward pass over as many batches."""
    backbone = open_backbone(directory, precision=precision)
    images = torch.randn(BATCH, 3, 224, 224).to(backbone._dtype)
    with torch.inference_mode():
        backbone(images)
        start = time.perf_counter()
        for _ in range(batches):
            backbone(images)
        return time.perf_counter() - start


def main() -> int:
    """Measure, print one line per type, and return 1 when one misses its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="zip or tar with one folder per class")
    parser.add_argument("--images", type=int, default=96, help="how many photographs to use")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode and augment")
    arguments = parser.parse_args()
    missed = False
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        photos = arguments.photos or directory / "photos.zip"
        if arguments.photos is None:
            write_photos(photos, arguments.images)
        options: dict[str, Any] = {"kind": "archive", "path": str(photos.resolve())}
        run("dataset", {"name": "photos", "options": options, "data_dir": name}, directory / "photos")
        save_file(timm.create_model(MODEL).state_dict(), directory / "weights.safetensors")
        options = {"kind": "timm", "model": MODEL, "checkpoint": str(directory / "weights.safetensors")}
        run("backbone", {"name": "vit", "options": options}, directory / "vit")
        made_from = {"dataset": directory / "photos", "backbone": directory / "vit"}
        threads = torch.get_num_threads()
        count = min(arguments.images, len(ImageDataset(directory / "photos", "test")))
        for precision in ("float32", "bfloat16"):
            changes = {"dataset": "photos", "backbone": "vit", "split": "test", "with_task_loss": False}
            changes |= {"samples": [0, count], "epochs": [0, EPOCHS], "batch_size": BATCH, "threads": threads}
            spec = block_spec(precision=precision, **changes)
            views = count * EPOCHS
            ratios = []
            for attempt in range(3):
                before = forward_seconds(directory / "vit", precision, views // BATCH)
                start = time.perf_counter()
                run("features", spec, directory / f"block{attempt}", Settings(workers=arguments.workers), **made_from)
                extraction = time.perf_counter() - start
                after = forward_seconds(directory / "vit", precision, views // BATCH)
                bare = (before + after) / 2 * views / (views // BATCH * BATCH)
                ratios.append((bare / extraction, views / extraction, views / bare))
            ratio, ours, bound = max(ratios)
            missed |= ratio < MINIMUM_SHARE
            verdict = "ok" if ratio >= MINIMUM_SHARE else "MISSED"
            print(
                f"extraction {precision:8} {'block / bare forward':21} {ratio:5.2f} (at least {MINIMUM_SHARE:.2f}: "
                f"{verdict}) {ours:.0f} / {bound:.0f} images/s",
                flush=True,
            )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
