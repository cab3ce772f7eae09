"""Densities of u, as several figures show them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_BINS = 512
LARGEST = 1e150  # of either sign; the squares of larger numbers overflow


def density(uncertainty: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a smoothed histogram of u.

    A Gaussian of Silverman's bandwidth 0.9 min(std, IQR / 1.34) n^(-1/5) smooths 512 bins; mass is reflected at the
    ends, since u has a lower bound.

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
    # In units of bins: neither a huge u, whose square overflows, nor the last digits of nearly equal ones do any harm.
    position = (np.clip(uncertainty, -LARGEST, LARGEST).astype(np.float64) - low) / step
    inside = position[(position >= 0) & (position <= _BINS)]
    counts = np.bincount(np.minimum(inside.astype(np.int64), _BINS - 1), minlength=_BINS)
    quartiles = np.percentile(position, [25, 75])
    scale = min(float(np.std(position)), float(quartiles[1] - quartiles[0]) / 1.34)
    bandwidth = 0.9 * scale * len(uncertainty) ** -0.2
    smoothed = gaussian_filter1d(counts.astype(np.float64), max(bandwidth, 1.0), mode="reflect")
    return low + (np.arange(_BINS) + 0.5) * step, smoothed / (len(uncertainty) * step)


def shown_range(samples: Iterable[np.ndarray], share: float) -> tuple[float, float]:
    """Return the lowest and highest u to show of several samples, each float [n].

    `share` of a sample is left out at either end, and what is larger than `LARGEST`. Where all values are equal but for
    rounding (a head that collapsed), the range is 1 wide, or as wide as rounding needs.
    """
    import numpy as np

    clipped = [np.clip(values, -LARGEST, LARGEST).astype(np.float64) for values in samples]
    ends = np.array([np.quantile(values, [share, 1 - share]) for values in clipped])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    size = max(abs(low), abs(high))
    if high - low > 1e-9 * size:
        return low, high
    return low - max(0.5, 1e-6 * size), high + max(0.5, 1e-6 * size)
