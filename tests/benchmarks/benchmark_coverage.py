"""How often the 95 % intervals of Recall@1 and R-AUROC hold the truth, over images and over whole classes.

`python -m tests.benchmarks.benchmark_coverage` ends with an error when the intervals over classes, the default where
there are ten or more, hold it too rarely. Worlds are drawn again and again: classes are points, images noisy
copies of them, each with a noise of its own and some classes with more than others, and u is a guess at this noise.
The truth is the mean over all worlds, either with the same classes in each (another sample of the same kind of set) or
with other classes in each (what an unseen set stands for). Neighbours are searched in each world, not in resamples.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np

from pipeline_lib.metrics.bootstrap import Resampling, bootstrap_auroc, bootstrap_recall_at_1, percentile_interval

DIM = 12
CONFIDENCE, LEAST = 0.95, 0.85
RESAMPLES = 200
SIZES = ((48, 20), (10, 96))
QUANTITIES = ("R@1", "R-AUROC of u", "R-AUROC of distance", "distance - u")


def world(
    classes: np.random.Generator, images: np.random.Generator, count: int, per_class: int
) -> tuple[np.ndarray, ...]:
    """Return label, whether the nearest neighbour is wrong, u, and the distance, each [count * per_class]."""
    means, spread = classes.normal(size=(count, DIM)), classes.gamma(8.0, 1 / 8, size=count)
    label = np.repeat(np.arange(count), per_class)
    noise = 0.55 * spread[label] * images.gamma(4.0, 1 / 4, size=len(label))
    values = means[label] + noise[:, None] * images.normal(size=(len(label), DIM))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    similarity = values @ values.T
    np.fill_diagonal(similarity, -2)
    neighbour = similarity.argmax(axis=1)
    return (
        label,
        label[neighbour] != label,
        noise * np.exp(0.5 * images.normal(size=len(label))),
        1 - similarity.max(axis=1),
    )


def statistics(wrong: np.ndarray, scores: list[np.ndarray], resampling: Resampling) -> np.ndarray:
    """Return each of `QUANTITIES` on each resample, float64 [4, resamples]."""
    u, distance = bootstrap_auroc(scores, wrong, resampling)
    return np.stack([bootstrap_recall_at_1(~wrong, resampling), u, distance, distance - u])


def coverage(draw: Callable[[int], tuple[np.ndarray, ...]], worlds: int) -> dict[str, np.ndarray]:
    """Return the share of worlds whose interval holds the truth, by unit, float64 [4]."""
    points, intervals = [], {"images": [], "classes": []}  # type: ignore[var-annotated]  # lists of arrays
    for number in range(worlds):
        label, wrong, *scores = draw(number)
        once = Resampling(len(label), 1, 0, np.zeros(len(label), int))  # one class that is drawn once: the set itself
        points.append(statistics(wrong, scores, once)[:, 0])
        for unit, class_of in (("images", None), ("classes", label)):
            values = statistics(wrong, scores, Resampling(len(label), RESAMPLES, number, class_of))
            intervals[unit].append([percentile_interval(row, CONFIDENCE) for row in values])
    truth = np.mean(points, axis=0)
    return {
        unit: np.mean(
            [[low <= true <= high for (low, high), true in zip(rows, truth, strict=True)] for rows in found], 0
        )
        for unit, found in intervals.items()
    }


def main() -> int:
    """Simulate, print a line per kind of truth and interval, and return 1 when classes cover too rarely."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=200)
    worlds = parser.parse_args().worlds
    missed = False
    print(f"coverage of {100 * CONFIDENCE:.0f} % intervals, {worlds} worlds: {', '.join(QUANTITIES)}")
    for count, per_class in SIZES:
        for kind in ("the same classes", "other classes"):

            def draw(
                number: int, kind: str = kind, size: tuple[int, int] = (count, per_class)
            ) -> tuple[np.ndarray, ...]:
                of_classes = np.random.default_rng(0 if kind == "the same classes" else 1 + number)
                return world(of_classes, np.random.default_rng(10_000 + number), *size)

            for unit, shares in coverage(draw, worlds).items():
                is_missed = unit == "classes" and bool((shares < LEAST).any()) and count > 10
                missed |= is_missed
                print(
                    f"  {count} classes of {per_class}, {kind}, over {unit}: "
                    f"{', '.join(f'{share:.3f}' for share in shares)}{': MISSED' if is_missed else ''}",
                    flush=True,
                )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
