"""How long evaluating the heads of one dataset takes, its neighbours given, and how much memory.

`python -m tests.benchmarks.benchmark_evaluation` ends with an error when a bound is missed. The dataset has 60,000
images with 768-d representations, and there are five seeds; representations and heads are random, files and stages
are the real ones.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.config.training import Training
from pipeline_lib.core import artefacts
from pipeline_lib.features import store
from pipeline_lib.features.blocks import block_name
from pipeline_lib.features.cache import BLOCK_STAGE, CACHE_STAGE
from pipeline_lib.heads.checkpoint import TrainedHead, write_head

SECONDS, MEGABYTES = 10.0, 2000
SEEDS = [1, 2, 3, 4, 5]
SET = {"backbone": "vit", "dataset": "birds", "split": "test"}
SPEC = {
    **SET,
    "is_upstream": False,
    "bootstrap": {"resamples": 1000, "confidence": 0.95, "seed": 0},
    "target_accuracies": [0.9, 0.95],
    "compat": "none",
}


def write_view(folder: Path, view: str, rows: int, dim: int, random: np.random.Generator) -> None:
    """Write one block with all images, and the record of the view."""
    name = block_name((0, rows), (0, 1))
    embedding = random.standard_normal((1, rows, dim), np.float32).astype(np.float16)
    arrays = {"embedding": embedding, "class_entropy": random.random((1, rows), np.float32)}
    if view == "centre_crop":
        arrays["crop_fraction"] = random.random((1, rows), np.float32)
    arrays |= {"sample_id": np.arange(rows), "label": random.integers(0, 100, rows), "epoch": np.zeros(1, np.int64)}
    with artefacts.writing(folder / view / "blocks" / name, BLOCK_STAGE, SET) as draft:
        store.write_arrays(draft.path, "zarr", arrays, 16_384)
        draft.facts.update(rows=rows, dim=dim, arrays=sorted(arrays), skipped=[])
    digest = artefacts.read(folder / view / "blocks" / name, BLOCK_STAGE, verify=False).digest
    with artefacts.writing(folder / view / "cache", CACHE_STAGE, {"block": SET}) as draft:
        block = {"name": name, "digest": digest, "rows": rows, "epochs": [0, 1]}
        facts: dict[str, Any] = {"rows": rows, "epochs": 1, "dim": dim, "arrays": sorted(arrays)}
        draft.facts.update(**facts, blocks=[block], format="zarr", backbone="", dataset="")


def write_world(folder: Path, rows: int, dim: int) -> None:
    """Write views, the baselines' evaluation and the heads."""
    random = np.random.default_rng(0)
    for view in ("eval", "centre_crop"):
        write_view(folder, view, rows, dim, random)
    columns = {
        "sample_id": np.arange(rows),
        "label": random.integers(0, 100, rows),
        "correct": random.random(rows) < 0.7,
        "reference_correct": random.random(rows) < 0.7,
        "class_entropy": random.random(rows, np.float32),
        "embedding_norm": random.random(rows),
        "knn_distance": random.random(rows),
        "crop_fraction": random.random(rows, np.float32),
        "crop_class_entropy": random.random(rows, np.float32),
        "crop_embedding_norm": random.random(rows),
    }
    with artefacts.writing(folder / "baselines", "evaluation", SPEC) as draft:
        pq.write_table(pa.table(columns), draft.path / "scores.parquet")
        baselines = ("class_entropy", "embedding_norm", "knn_distance")
        pq.write_table(pa.table({name: random.random(1000) for name in baselines}), draft.path / "resampled.parquet")
    widths = [(512, dim), (512, 512), (1, 512)]
    for seed in SEEDS:
        weights: dict[str, np.ndarray] = {}
        for layer, shape in enumerate(widths):
            weights[f"layers.{layer}.weight"] = (random.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32)
            weights[f"layers.{layer}.bias"] = np.zeros(shape[0], np.float32)
        spec = {"backbone": "vit", "variant": "default", "seed": seed}
        write_head(folder / "heads" / f"seed{seed}", spec, TrainedHead(seed, weights, ({"episode": 0},)), Training())


def main() -> int:
    """Measure the stage in a process of its own, print one line, and return 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--dim", type=int, default=768)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_world(folder, arguments.rows, arguments.dim)
        spec = {**SPEC, "variant": "default", "seeds": SEEDS}
        command = [sys.executable, "-m", "pipeline_lib", "evaluate_heads", "--spec", json.dumps(spec)]
        command += ["--features", name, "--baselines", f"{name}/baselines", "--output", f"{name}/out", "--heads"]
        command += [f"{seed}={name}/heads/seed{seed}" for seed in SEEDS]
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run(command, check=True, env=os.environ)
            seconds.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    missed = min(seconds) > SECONDS or peak > MEGABYTES
    print(
        f"evaluation, {arguments.rows:,} x {arguments.dim}, {len(SEEDS)} seeds: {min(seconds):.1f} s "
        f"(at most {SECONDS:.0f}), {peak:,.0f} MB (at most {MEGABYTES:,}){': MISSED' if missed else ''}",
        flush=True,
    )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
