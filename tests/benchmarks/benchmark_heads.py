"""How fast heads are trained, against bounds measured in the same run.

`python tests/benchmarks/benchmark_heads.py` ends with an error when a ratio misses its bound. After each burst of the
trainer comes one of the bare products, and the median over these pairs counts: on a shared machine the
speed of the products changes threefold from one second to the next, for the trainer as for the bare loop.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from pipeline_lib.config.training import Training
from pipeline_lib.heads.checkpoint import Record
from pipeline_lib.heads.spec import HeadSpec
from pipeline_lib.heads.train import train_heads
from tests.benchmarks.processor import precisions
from tests.unit.heads_world import head_spec

DIM, HIDDEN, BATCH = 768, 512, 2048
ROWS = 32 * BATCH
BURST = 8 * BATCH
SEEDS = (1, 2, 3, 4, 5)
# Until then a head learns most of its pairs; a real training is hundreds of times as long.
BURSTS_LEFT_OUT = 8
# How far the task loss can be predicted: a head gets 80 % of the pairs right, as in the embedded default.
CORRELATION = 0.81
MINIMUM_TRAINER_SHARE = 0.80
MINIMUM_STACK_GAIN = {"float32": 1.0, "bfloat16": 1.1}


class MemoryRows:
    """Cached features held in memory: random ones, whose task loss follows one direction as far as `correlation`."""

    def __init__(self, correlation: float) -> None:
        random = np.random.default_rng(0)
        self.rows, self.epochs, self.dim = ROWS, 1, DIM
        embedding = random.standard_normal((ROWS, DIM), np.float32)
        noise = random.standard_normal(ROWS, np.float32)
        task_loss = correlation * embedding[:, 0] + np.sqrt(1 - correlation**2, dtype=np.float32) * noise
        self._arrays = {"embedding": embedding.astype(np.float16), "task_loss": task_loss}

    def read(self, array: str, epoch: int, start: int, stop: int) -> np.ndarray:
        """Return rows of one array."""
        return self._arrays[array][start:stop]


def bare_products(dtype: torch.dtype) -> Callable[[], None]:
    """Return a function that does the matrix products of one training step and nothing else.

    Forward, weight gradients, and input gradients of layers 2 and 3; results go to memory that is there already.
    The input is another batch each time.
    """
    inputs = torch.randn(ROWS, DIM).to(dtype)
    weights = [torch.randn(shape).to(dtype) for shape in ((HIDDEN, DIM), (HIDDEN, HIDDEN), (1, HIDDEN))]
    gradients = [torch.empty_like(weight) for weight in weights]
    first, second, first_gradient, second_gradient = (torch.empty(BATCH, HIDDEN, dtype=dtype) for _ in range(4))
    output, output_gradient = torch.empty(BATCH, 1, dtype=dtype), torch.randn(BATCH, 1).to(dtype)
    step = 0

    def run() -> None:
        nonlocal step
        start = step * BATCH % ROWS
        step += 1
        batch = inputs[start : start + BATCH]
        torch.mm(batch, weights[0].T, out=first)
        torch.mm(first, weights[1].T, out=second)
        torch.mm(second, weights[2].T, out=output)
        torch.mm(output_gradient.T, second, out=gradients[2])
        torch.mm(output_gradient, weights[2], out=second_gradient)
        torch.mm(second_gradient.T, first, out=gradients[1])
        torch.mm(second_gradient, weights[1], out=first_gradient)
        torch.mm(first_gradient.T, batch, out=gradients[0])

    return run


def seconds_of(bare: Callable[[], None], steps: int = 4) -> float:
    """Return the shortest time of a step."""
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        bare()
        times.append(time.perf_counter() - start)
    return min(times)


class Measured(NamedTuple):
    """Images (of each seed) per second in bursts of a training, and of the bare products right after each."""

    trainer: list[float]
    products: list[float]

    @property
    def ratio(self) -> float:
        """The median over the pairs of bursts."""
        return statistics.median(one / other for one, other in zip(*self, strict=True))


def measure(
    rows: MemoryRows, precision: str, seeds: tuple[int, ...], bare: Callable[[], None], bursts: int, threads: int
) -> Measured:
    """Train for some bursts beside the bare products.

    A burst is an episode and a buffer, so it has its share of everything that training does: reading, checking,
    casting, shuffling, the optimiser.
    """
    bursts += BURSTS_LEFT_OUT
    training = Training(
        epochs=-(-bursts * BURST // ROWS),
        precision=precision,
        threads=threads,
        device="cpu",
        episode_samples=BURST,
        shuffle_buffer=BURST,
        warmup_episodes=0,
    )
    measured = Measured([], [])
    start = time.perf_counter()

    def on_episode(head: HeadSpec, record: Record) -> None:
        nonlocal start
        if head.seed != seeds[-1]:  # of all heads, one after the other, when an episode of theirs ends
            return
        end = time.perf_counter()
        measured.trainer.append(len(seeds) * BURST / (end - start))
        for _ in range(BURST // BATCH):
            bare()
        start = time.perf_counter()
        measured.products.append(BURST / (start - end))

    train_heads(rows, [head_spec(seed, training) for seed in seeds], on_episode)
    return Measured(*(speeds[BURSTS_LEFT_OUT:] for speeds in measured))


def main() -> int:
    """Measure, print one line per ratio, and return 1 when one misses its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bursts", type=int, default=20, help="of a head alone; a fifth of it for five heads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    learnable, random = MemoryRows(CORRELATION), MemoryRows(0)
    missed = False

    def report(name: str, measured: Measured, ratio: float, bound: float | None) -> None:
        nonlocal missed
        missed |= bound is not None and ratio < bound
        verdict = "" if bound is None else f"at least {bound:.2f}: {'ok' if ratio >= bound else 'MISSED'}; "
        speeds = " / ".join(f"{statistics.median(speeds):,.0f}" for speeds in measured)
        print(f"heads {name}: {ratio:.2f} ({verdict}{speeds} of the bare products a second)", flush=True)

    def run(precision: str, rows: MemoryRows, seeds: tuple[int, ...], bare: Callable[[], None]) -> Measured:
        return measure(rows, precision, seeds, bare, arguments.bursts // len(seeds), arguments.threads)

    for precision in precisions("heads"):
        bare = bare_products(getattr(torch, precision))
        one, stacked = run(precision, learnable, SEEDS[:1], bare), run(precision, learnable, SEEDS, bare)
        report(f"{precision}, one head / products", one, one.ratio, MINIMUM_TRAINER_SHARE)
        worst = run(precision, random, SEEDS[:1], bare)
        report(f"{precision}, one head that can learn nothing / products", worst, worst.ratio, None)
        report(
            f"{precision}, five stacked / one by one", stacked, stacked.ratio / one.ratio, MINIMUM_STACK_GAIN[precision]
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
