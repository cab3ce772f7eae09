"""How fast heads are trained, against bounds measured in the same run.

Run as a script with the number of threads as an optional argument. Both sides of a ratio take turns in short
bursts, and the fastest burst of each counts: on a shared machine everything else measures the neighbours.
"""

from __future__ import annotations

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


def bare_products(dtype: torch.dtype) -> Callable[[], None]:
    """Return a function that does the matrix products of one training step and nothing else.

    Forward, weight gradients, and input gradients of layers 2 and 3; results go to memory that is there already.
    The input is another batch each time, in memory in the type of the products: reading float16 features,
    checking, casting and shuffling them is the trainer's work and counts against it.
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


def bare_speed(dtype: torch.dtype, bursts: int) -> float:
    """Return images per second of the bare products: the fastest of some bursts."""
    run = bare_products(dtype)
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
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    torch.set_num_threads(threads)
    rows = MemoryRows()
    missed = False
    for precision in ("float32", "bfloat16"):
        bare = one = stacked = 0.0
        for _ in range(6):
            bare = max(bare, bare_speed(getattr(torch, precision), bursts=12))
            one = max(one, trainer_speed(rows, precision, SEEDS[:1], epochs=3, threads=threads))
            stacked = max(stacked, trainer_speed(rows, precision, SEEDS, epochs=1, threads=threads))
        for name, ratio, bound, figures in (
            ("one head / bare products", one / bare, MINIMUM_TRAINER_SHARE, f"{one:,.0f} / {bare:,.0f} images/s"),
            (
                "five stacked / one by one",
                stacked / one,
                MINIMUM_STACK_GAIN[precision],
                f"{stacked:,.0f} / {one:,.0f} seed-images/s",
            ),
        ):
            verdict = "ok" if ratio >= bound else "MISSED"
            missed |= ratio < bound
            print(f"heads {precision:8} {name:26} {ratio:5.2f} (at least {bound:.2f}: {verdict}) {figures}", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
