"""How fast heads are trained, against bounds measured in the same run.

`python tests/benchmarks/benchmark_heads.py` ends with an error when a ratio misses its bound. Both sides of a ratio
take turns in short bursts, and the fastest burst of each counts: on a shared machine everything else measures
the neighbours.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from pipeline_lib.config.training import Training
from pipeline_lib.heads.train import train_heads

DIM, HIDDEN, BATCH = 768, 512, 2048
ROWS = 32 * BATCH
BURST = 8 * BATCH
SEEDS = (1, 2, 3, 4, 5)
MINIMUM_TRAINER_SHARE = 0.80
MINIMUM_STACK_GAIN = {"float32": 1.0, "bfloat16": 1.1}


class MemoryRows:
    """Cached features held in memory."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.rows, self.epochs, self.dim = ROWS, 1, DIM
        self._arrays = {
            "embedding": random.standard_normal((ROWS, DIM), np.float32).astype(np.float16),
            "task_loss": random.random(ROWS, np.float32),
        }

    def read(self, array: str, epoch: int, start: int, stop: int) -> np.ndarray:
        """Return rows of one array."""
        return self._arrays[array][start:stop]


def bare_products(dtype: torch.dtype, stored: torch.dtype) -> Callable[[], None]:
    """Return a function that does the matrix products of one training step and nothing else.

    Forward, weight gradients, and input gradients of layers 2 and 3; results go to memory that is there already.
    The input is another batch each time, stored in memory in some type; `.to` casts it to that of the products.
    """
    inputs = torch.randn(ROWS, DIM).to(stored)
    weights = [torch.randn(shape).to(dtype) for shape in ((HIDDEN, DIM), (HIDDEN, HIDDEN), (1, HIDDEN))]
    gradients = [torch.empty_like(weight) for weight in weights]
    first, second, first_gradient, second_gradient = (torch.empty(BATCH, HIDDEN, dtype=dtype) for _ in range(4))
    output, output_gradient = torch.empty(BATCH, 1, dtype=dtype), torch.randn(BATCH, 1).to(dtype)
    step = 0

    def run() -> None:
        nonlocal step
        start = step * BATCH % ROWS
        step += 1
        batch = inputs[start : start + BATCH].to(dtype)
        torch.mm(batch, weights[0].T, out=first)
        torch.mm(first, weights[1].T, out=second)
        torch.mm(second, weights[2].T, out=output)
        torch.mm(output_gradient.T, second, out=gradients[2])
        torch.mm(output_gradient, weights[2], out=second_gradient)
        torch.mm(second_gradient.T, first, out=gradients[1])
        torch.mm(second_gradient, weights[1], out=first_gradient)
        torch.mm(first_gradient.T, batch, out=gradients[0])

    return run


def trainer_speed(rows: MemoryRows, precision: str, seeds: tuple[int, ...], epochs: int, threads: int) -> float:
    """Return seed-images per second of a training: its fastest burst.

    A burst is an episode and a buffer, so it has its share of everything that training does: reading, checking,
    casting, shuffling, the optimiser. The first is left out, in which the buffer is filled while nothing else runs.
    """
    training = Training(
        epochs=epochs,
        precision=precision,
        threads=threads,
        device="cpu",
        episode_samples=BURST,
        shuffle_buffer=BURST,
        warmup_episodes=0,
    )
    ends: list[float] = []
    train_heads(rows, training, seeds, on_episode=lambda record: ends.append(time.perf_counter()))
    return len(seeds) * BURST / min(np.diff(ends))


def bare_speed(dtype: torch.dtype, stored: torch.dtype, bursts: int) -> float:
    """Return images per second of the bare products: the fastest of some bursts."""
    run = bare_products(dtype, stored)
    run()
    steps = BURST // BATCH
    seconds = []
    for _ in range(bursts):
        start = time.perf_counter()
        for _ in range(steps):
            run()
        seconds.append(time.perf_counter() - start)
    return BURST / min(seconds)


def main() -> int:
    """Measure, print one line per ratio, and return 1 when one misses its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = MemoryRows()
    missed = False
    for precision in ("float32", "bfloat16"):
        dtype = getattr(torch, precision)
        products = from_float16 = one = stacked = 0.0
        for _ in range(arguments.rounds):
            products = max(products, bare_speed(dtype, dtype, bursts=6))
            from_float16 = max(from_float16, bare_speed(dtype, torch.float16, bursts=6))
            one = max(one, trainer_speed(rows, precision, SEEDS[:1], epochs=2, threads=arguments.threads))
            stacked = max(stacked, trainer_speed(rows, precision, SEEDS, epochs=1, threads=arguments.threads))
        for name, speed, reference, bound in (
            ("one head / products", one, products, MINIMUM_TRAINER_SHARE),
            ("one head / products on float16 input", one, from_float16, None),
            ("five stacked / one by one", stacked, one, MINIMUM_STACK_GAIN[precision]),
        ):
            ratio = speed / reference
            missed |= bound is not None and ratio < bound
            verdict = "" if bound is None else f"at least {bound:.2f}: {'ok' if ratio >= bound else 'MISSED'}; "
            print(
                f"heads {precision}, {name}: {ratio:.2f} ({verdict}{speed:,.0f} / {reference:,.0f} a second)",
                flush=True,
            )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
