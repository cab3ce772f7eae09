"""By what a query is rejected: how uncertain it is, how far away its nearest neighbour is, or both together.

Both together need no label: with z(x) = (x - mean) / standard deviation over some reference images,

    z(distance) + max(0, rho) z(u),    rho = Spearman's correlation of u and distance on these images.

Where u says the same as the distance it joins in; where it doesn't, as on images that it was not made for, the distance
decides alone. The weight was found on the rendered scripts of the default config, and tried on others afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
import pandas as pd

Signal = Literal["both", "distance", "uncertainty"]
SIGNALS: tuple[Signal, ...] = get_args(Signal)


@dataclass(frozen=True)
class Combination:
    """Distance and uncertainty together, on the scale of some reference images.

    distance, uncertainty: mean and standard deviation. weight: of the uncertainty, max(0, rho).
    """

    distance: tuple[float, float]
    uncertainty: tuple[float, float]
    weight: float

    @classmethod
    def of(cls, distance: np.ndarray, uncertainty: np.ndarray) -> Self:
        """Return the combination on the scale of reference images, float [n] each; a constant counts as 0."""
        if len(distance) == 0:
            return cls((0.0, np.inf), (0.0, np.inf), 0.0)
        distance, uncertainty = np.asarray(distance, np.float64), np.asarray(uncertainty, np.float64)
        # Ranks are multiples of one half around a mean that is one too, so these sums are exact.
        first, second = (pd.Series(x).rank().to_numpy() - (len(x) + 1) / 2 for x in (distance, uncertainty))
        spread = float(first @ first) * float(second @ second)
        rho = float(first @ second) / spread**0.5 if spread else 0.0
        return cls(_scale(distance), _scale(uncertainty), max(0.0, rho))

    def __call__(self, distance: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
        """Return the combination of images, float64 [n]."""
        return _standard(distance, *self.distance) + self.weight * _standard(uncertainty, *self.uncertainty)


def combine(distance: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
    """Return the combination of each image of a set on the scale of this set, float64 [n]."""
    return Combination.of(distance, uncertainty)(distance, uncertainty)


def signal_of(signal: Signal, combination: Combination, distance: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
    """Return a signal of images, float64 [n]."""
    if signal == "both":
        return combination(distance, uncertainty)
    return distance if signal == "distance" else uncertainty


def _scale(values: np.ndarray) -> tuple[float, float]:
    with np.errstate(over="ignore"):  # a spread that is too large to square is infinite
        return float(values.mean()), float(values.std()) if np.ptp(values) > 0 else np.inf


def _standard(values: np.ndarray, mean: float, deviation: float) -> np.ndarray:
    return (np.asarray(values, np.float64) - mean) / deviation if deviation < np.inf else np.zeros(len(values))
