"""Densities of u, as several figures show them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_BINS = 512
_BANDWIDTHS = 3.0  # from the last value on, after which a Gaussian has ended
LARGEST = 1e150  # of either sign; the squares of larger numbers overflow


def density(uncertainty: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a smoothed histogram of u.

    A Gaussian of Silverman's bandwidth 0.9 min(std, IQR / 1.34) n^(-1/5) smooths 512 bins; mass is reflected at the
    ends, of which the lower may be a bound of u.

    Parameters
    ----------
    uncertainty
        u, float [n].
    low, high
        Where the histogram begins and ends; values outside are left out but count in the total.

    Returns
    -------
    position, height
        Centres of the bins and the density at each, float64 [512].

    References
    ----------
    Silverman, Density Estimation (1986), eq. 3.31.
    """
    import numpy as np
    from scipy.ndimage import gaussian_filter1d

    step = (high - low) / _BINS
    # In units of bins: the last digits of nearly equal values do no harm.
    position = (_finite(uncertainty) - low) / step
    inside = position[(position >= 0) & (position <= _BINS)]
    counts = np.bincount(np.minimum(inside.astype(np.int64), _BINS - 1), minlength=_BINS)
    smoothed = gaussian_filter1d(counts.astype(np.float64), max(_bandwidth(position), 1.0), mode="reflect")
    return low + (np.arange(_BINS) + 0.5) * step, smoothed / (len(uncertainty) * step)


def shown_range(samples: Iterable[np.ndarray], share: float) -> tuple[float, float]:
    """Return the lowest and highest u to show of several samples, each float [n]: where their densities have ended.

    `share` of a sample is left out at either end, and what is larger than `LARGEST`; room is left for what smoothing
    adds there; a u that is never negative has no density below zero. Where all values are equal but for rounding (a
    head that collapsed), the range is 1 wide, or as wide as rounding needs.
    """
    import numpy as np

    lows, highs, lowest = [], [], math.inf
    for values in map(_finite, samples):
        low, high = np.quantile(values, [share, 1 - share])
        room = _BANDWIDTHS * _bandwidth(values)
        lows.append(float(low) - room)
        highs.append(float(high) + room)
        lowest = min(lowest, float(values.min()))
    low, high = min(lows), max(highs)
    low = max(low, 0.0) if lowest >= 0 else low
    size = max(abs(low), abs(high))
    if high - low > 1e-9 * size:
        return low, high
    return low - max(0.5, 1e-6 * size), high + max(0.5, 1e-6 * size)


def _finite(values: np.ndarray) -> np.ndarray:
    """Return u as float64 whose square is finite."""
    import numpy as np

    return np.clip(values.astype(np.float64), -LARGEST, LARGEST)


def _bandwidth(values: np.ndarray) -> float:
    import numpy as np

    quartiles = np.percentile(values, [25, 75])
    scale = min(float(np.std(values)), float(quartiles[1] - quartiles[0]) / 1.34)
    return float(0.9 * scale * len(values) ** -0.2)
