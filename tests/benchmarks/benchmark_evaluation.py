"""How long evaluating the heads of one dataset takes, its neighbours given, and how much memory.

`python -m tests.benchmarks.benchmark_evaluation` ends with an error when a bound is missed. The dataset has 60,000
images with 768-d representations, and there are five seeds; representations and heads are random, files and stages
are the real ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.config.evaluation import Evaluation
from pipeline_lib.config.views import Eval
from pipeline_lib.core import artefacts
from pipeline_lib.core.jobs import Job
from pipeline_lib.evaluation.spec import BaselinesSpec, HeadsSpec, MetricOptions
from pipeline_lib.features import store
from pipeline_lib.features.cache import BLOCK_STAGE, BlockRecord
from pipeline_lib.features.spec import CacheSpec
from pipeline_lib.heads.checkpoint import TrainedHead
from tests.unit.heads_world import stored
from tests.unit.worlds import block_name

SECONDS, MEGABYTES = 10.0, 2000
SEEDS = (1, 2, 3, 4, 5)
SET = {"backbone": "vit", "dataset": "birds", "split": "test"}
SPEC = {**SET, "is_upstream": False, **MetricOptions.values(Evaluation())}
HEADS = HeadsSpec.model_validate({**SPEC, "variant": "default", "seeds": SEEDS})


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
    block = artefacts.read(folder / view / "blocks" / name, verify=False)
    numbers = {"with_task_loss": False, "batch_size": 1, "threads": 1, "epochs": 1}
    types = {"view": Eval(), "dtype": "float16", "precision": "float32", "device": "cpu"}
    spec = CacheSpec.model_validate({**SET, **numbers, **types})
    with Job("cache", spec, {}, folder / view / "cache").writing() as draft:
        record = BlockRecord(name, block.content, rows, (0, 1))
        facts = {"rows": rows, "epochs": 1, "dim": dim, "arrays": sorted(arrays)}
        draft.facts.update(facts, blocks=[dataclasses.asdict(record)])


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
    }
    with Job("baselines", BaselinesSpec.model_validate(SPEC), {}, folder / "baselines").writing() as draft:
        pq.write_table(pa.table(columns), draft.path / "scores.parquet")
        baselines = ("class_entropy", "embedding_norm", "knn_distance")
        pq.write_table(pa.table({name: random.random(1000) for name in baselines}), draft.path / "resampled.parquet")
    widths = [(512, dim), (512, 512), (1, 512)]
    for seed in SEEDS:
        weights: dict[str, np.ndarray] = {}
        for layer, shape in enumerate(widths):
            weights[f"layers.{layer}.weight"] = (random.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32)
            weights[f"layers.{layer}.bias"] = np.zeros(shape[0], np.float32)
        stored(folder / f"head{seed}", TrainedHead(seed, weights, ({"episode": 0},)), backbone="vit")


def main() -> int:
    """Measure the stage in a process of its own, print one line, and return 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--dim", type=int, default=768)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write_world(Path(name), arguments.rows, arguments.dim)
        command = [sys.executable, "-m", "pipeline_lib", "evaluate_heads", "--spec", json.dumps(HEADS.plain())]
        command += ["--features", f"{name}/eval/cache", "--centre-crop", f"{name}/centre_crop/cache"]
        command += ["--baselines", f"{name}/baselines", "--output", f"{name}/out", "--heads"]
        command += [f"{name}/head{seed}" for seed in SEEDS]
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
