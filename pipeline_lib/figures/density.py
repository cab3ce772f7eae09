"""Densities of u, as several figures show them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_BINS = 512
_BANDWIDTHS = 3.0  # from the last value on, after which a Gaussian has ended


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

    counts, edges = np.histogram(uncertainty, bins=_BINS, range=(low, high))
    step = (high - low) / _BINS
    smoothed = gaussian_filter1d(counts.astype(np.float64), max(_bandwidth(uncertainty) / step, 1.0), mode="reflect")
    return (edges[:-1] + edges[1:]) / 2, smoothed / (len(uncertainty) * step)


def shown_range(samples: Iterable[np.ndarray], share: float) -> tuple[float, float]:
    """Return the lowest and highest u to show of several samples, each float [n]: where their densities have ended.

    `share` of a sample is left out at either end, and room is left for what smoothing adds there; a u that is never
    negative has no density below zero. Where all values are equal (a head that collapsed), the range is 1 wide.
    """
    import numpy as np

    lows, highs, lowest = [], [], math.inf
    for values in samples:
        low, high = np.quantile(values, [share, 1 - share])
        room = _BANDWIDTHS * _bandwidth(values)
        lows.append(float(low) - room)
        highs.append(float(high) + room)
        lowest = min(lowest, float(values.min()))
    low, high = min(lows), max(highs)
    low = max(low, 0.0) if lowest >= 0 else low
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _bandwidth(values: np.ndarray) -> float:
    import numpy as np

    quartiles = np.percentile(values, [25, 75])
    scale = min(float(np.std(values)), float(quartiles[1] - quartiles[0]) / 1.34)
    return float(0.9 * scale * len(values) ** -0.2)
