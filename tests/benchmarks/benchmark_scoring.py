"""How fast photographs are scored with a checkpoint, against the bare forward pass in the same type.

The photographs are made here, of ordinary size and compression; give an archive to use real ones:
python -m tests.benchmarks.benchmark_scoring --photos photos.zip

In float32, scoring must reach 75 % of the bare forward pass. In bfloat16 a CPU with matrix units computes about as
fast as it decodes: the bound there is what its cores could do if they never waited, t = t_forward + t_decode / cores
per image, of which scoring must reach 75 %.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path

import torch

from pipeline_lib.checkpoints.model import PretrainedModel
from pipeline_lib.pretrained import load
from pipeline_lib.scoring.images import ImageList
from pipeline_lib.scoring.run import score_images
from pipeline_lib.scoring.unfinished import Unfinished
from tests.benchmarks.benchmark_extraction import write_photos
from tests.benchmarks.processor import precisions
from tests.unit.scoring_world import write_random_checkpoint

MODEL, BATCH = "vit_tiny_patch16_224", 64
MINIMUM_SHARE = 0.75


def forward_seconds(model: PretrainedModel, batches: int) -> float:
    """Return the seconds of the bare forward pass of the backbone over as many batches."""
    images = torch.randn(BATCH, 3, 224, 224).to(next(model.backbone.parameters()).dtype)
    with torch.inference_mode():
        model.backbone(images)
        start = time.perf_counter()
        for _ in range(batches):
            model.backbone(images)
        return time.perf_counter() - start


def decoding_seconds(model: PretrainedModel, images: ImageList) -> float:
    """Return the seconds of one core that decodes and transforms all images."""
    start = time.process_time()
    for position in range(len(images)):
        model.transform.pixels(images.image(position))
    return time.process_time() - start


def scoring_seconds(model: PretrainedModel, images: ImageList, workers: int, directory: Path) -> float:
    """Return the seconds of scoring all images, representations written."""
    directory.mkdir()
    start = time.perf_counter()
    with Unfinished(directory / "scores.parquet", {}, directory / "representations.npy") as unfinished:
        score_images(images, model, unfinished, BATCH, workers)
    return time.perf_counter() - start


def main() -> int:
    """Measure, print one line per type, and return 1 when one misses its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="zip or tar of photographs")
    parser.add_argument("--images", type=int, default=320, help="how many to score, at least; all are used equally")
    parser.add_argument("--workers", type=int, default=torch.get_num_threads(), help="processes that decode")
    arguments = parser.parse_args()
    missed = False
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        photos = arguments.photos or directory / "photos.zip"
        if arguments.photos is None:
            write_photos(photos, 160)
        images = next(
            images for times in itertools.count(1) if len(images := ImageList([photos] * times)) >= arguments.images
        )
        checkpoint = write_random_checkpoint(directory / "checkpoint", MODEL, 224)
        for precision in precisions("scoring"):
            model = load(checkpoint, precision=precision)
            batches = -(-len(images) // BATCH)
            ratios = []
            for attempt in range(3):
                before = forward_seconds(model, batches)
                scoring = scoring_seconds(model, images, arguments.workers, directory / f"{precision}{attempt}")
                bare = (before + forward_seconds(model, batches)) / 2 * len(images) / (batches * BATCH)
                possible = bare + decoding_seconds(model, images) / torch.get_num_threads()
                ratios.append((bare / scoring, possible / scoring, len(images) / scoring, len(images) / bare))
            of_forward, of_possible, ours, bound = max(ratios)
            bounded = of_forward if precision == "float32" else of_possible
            missed |= bounded < MINIMUM_SHARE
            print(
                f"scoring {precision:8} {'scores / bare forward':21} {of_forward:5.2f}, of what the cores can do "
                f"{of_possible:5.2f} ({precision} at least {MINIMUM_SHARE:.2f} of "
                f"{'the first' if precision == 'float32' else 'the second'}: "
                f"{'ok' if bounded >= MINIMUM_SHARE else 'MISSED'}) {ours:.0f} / {bound:.0f} images/s",
                flush=True,
            )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
