"""How fast a block is extracted from photographs, against the bare forward pass in the same type.

Blocks on Pillow's images and on tensors (`features.pixels`) take turns with the bare forward pass, so that all see the
same machine. The seconds that a job takes to start (opening the backbone, starting workers) are said and taken off: a
block of this size is a hundredth of an ordinary one. The photographs are made here, of ordinary size and compression;
give an archive with one folder per class to use real ones:
python -m tests.benchmarks.benchmark_extraction --photos photos.zip
"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image, ImageFilter
from safetensors.torch import save_file

from pipeline_lib.backbones.artefact import open_backbone
from pipeline_lib.backbones.base import Backbone
from pipeline_lib.core.jobs import Settings
from pipeline_lib.datasets.images import ImageDataset
from pipeline_lib.datasets.views import make_view
from pipeline_lib.features.decoding import decoded_images
from tests.benchmarks.processor import precisions
from tests.jobs import run
from tests.unit.worlds import block_spec

MODEL, EPOCHS, BATCH, ROUNDS = "vit_tiny_patch16_224", 10, 64, 3
VIEW = {"kind": "augmented", "seed": 0}
PIXELS = {"pil": VIEW, "tensor": {**VIEW, "pixels": "tensor"}}
# The least share of the bare forward pass. On a CPU with AMX timm's augmentation of an image takes a quarter of a
# forward pass in bfloat16, so Pillow can't reach more there.
MINIMUM_SHARE = {
    "float32": {"pil": 0.90, "tensor": 0.90},
    "bfloat16": {"pil": 0.70, "tensor": 0.80},
}
_BLOCK_SECONDS = 4.0


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


def forward_seconds(backbone: Backbone, batches: int) -> float:
    """Return the seconds of the bare forward pass over a batch."""
    images = torch.randn(BATCH, 3, 224, 224).to(backbone._dtype)
    with torch.inference_mode():
        start = time.perf_counter()
        for _ in range(batches):
            backbone(images)
        return (time.perf_counter() - start) / batches


def drawn_per_second(images: ImageDataset, view: dict[str, Any], count: int) -> float:
    """Return how many views a core decodes and augments a second, each image decoded once for all epochs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    views = [(make_view(view, {"input_size": (3, 224, 224)}), range(EPOCHS))]
    start = time.process_time()
    for _ in decoded_images(images, range(count), views, 0, torch.device("cpu")):
        pass
    torch.set_num_threads(threads)
    return count * EPOCHS / (time.process_time() - start)


def main() -> int:
    """Measure, print one line per type and kind of pixels, and return 1 when one misses its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="zip or tar with one folder per class")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode and augment")
    arguments = parser.parse_args()
    missed = False
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        photos = arguments.photos or directory / "photos.zip"
        if arguments.photos is None:
            write_photos(photos, 192)
        options: dict[str, Any] = {"kind": "archive", "path": str(photos.resolve())}
        run("dataset", {"name": "photos", "options": options, "data_dir": name}, directory / "photos")
        save_file(timm.create_model(MODEL).state_dict(), directory / "weights.safetensors")
        options = {"kind": "timm", "model": MODEL, "checkpoint": str(directory / "weights.safetensors")}
        run("backbone", {"name": "vit", "options": options}, directory / "vit")
        images = ImageDataset(directory / "photos", "test")
        for pixels, view in PIXELS.items():
            speed = median(drawn_per_second(images, view, min(16, len(images))) for _ in range(ROUNDS))
            print(f"extraction {pixels:8} decoded and augmented {speed:.0f} images/s of a core", flush=True)
        numbers = itertools.count()

        def block_seconds(view: dict[str, Any], precision: str, count: int, epochs: int) -> float:
            spec = {"dataset": "photos", "backbone": "vit", "split": "test", "with_task_loss": False, "view": view}
            spec |= {"samples": [0, count], "epochs": [0, epochs], "batch_size": BATCH, "precision": precision}
            made_from = {"dataset": directory / "photos", "backbone": directory / "vit"}
            settings, output = Settings(workers=arguments.workers), directory / f"block{next(numbers)}"
            start = time.perf_counter()
            run("features", block_spec(**spec, threads=torch.get_num_threads()), output, settings, **made_from)
            return time.perf_counter() - start

        for precision in precisions("extraction"):
            bounds = MINIMUM_SHARE[precision]
            backbone = open_backbone(directory / "vit", precision=precision)
            forward_seconds(backbone, 1)
            before = forward_seconds(backbone, 1)
            batches = max(2, round(_BLOCK_SECONDS / before))
            count = min(batches * BATCH // EPOCHS, len(images))
            batches = -(-count * EPOCHS // BATCH)
            to_start = block_seconds(VIEW, precision, 1, 1) - before
            shares: dict[str, list[float]] = {pixels: [] for pixels in PIXELS}
            speeds: dict[str, list[float]] = {pixels: [] for pixels in PIXELS}
            for _ in range(ROUNDS):
                for pixels, view in PIXELS.items():
                    seconds = block_seconds(view, precision, count, EPOCHS) - to_start
                    after = forward_seconds(backbone, batches // 2)
                    shares[pixels].append((before + after) / 2 * batches / seconds)
                    speeds[pixels].append(count * EPOCHS / seconds)
                    before = after
            for pixels, bound in bounds.items():
                share = median(shares[pixels])
                missed |= share < bound
                print(
                    f"extraction {pixels:8} {precision:8} block / bare forward {share:5.2f} ({min(shares[pixels]):.2f}-"
                    f"{max(shares[pixels]):.2f}; at least {bound:.2f}: {'ok' if share >= bound else 'MISSED'}) "
                    f"{median(speeds[pixels]):.0f} images/s; {to_start:.1f} s to start",
                    flush=True,
                )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
