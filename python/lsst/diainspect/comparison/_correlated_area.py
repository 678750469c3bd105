"""How many pixels of a correlated field make an independent one.

For a Gaussian field with the correlation rho(r) = exp(-r^2 / 4 s^2), that of white noise after a Gaussian of width s,
the integral of rho^m over the plane is 4 pi s^2 / m. With Mehler's series of the bivariate normal distribution the
variance of any fraction of pixels follows in closed form.
"""

from __future__ import annotations

__all__ = ["correlation_area", "median_area", "threshold_area"]

from functools import cache

import numpy as np
import scipy.special

_MEDIAN = float(np.log(2.0))
"""For a median the sum of asin(rho) counts, over that of independent pixels, pi / 2: the integral of asin(rho) / rho
from 0 to 1 is pi ln(2) / 2."""

_TERMS = 400
"""Terms of the series; the rest is below 1 % for thresholds up to 6."""


def correlation_area(neighbours: tuple[float, float]) -> float:
    """Return 4 pi s^2 [pixel] of the Gaussian correlation that neighbours in x and y have.

    Parameters
    ----------
    neighbours : `tuple` [`float`, `float`]
        Correlations of pixels one step apart in x and in y.
    """
    squared = 0.5 * (neighbours[0] ** 2 + neighbours[1] ** 2)
    # exp(-r^2 / 4 s^2) squared at one pixel is `squared`.
    width2 = -0.5 / np.log(np.clip(squared, 1e-6, 0.98))
    return float(4.0 * np.pi * width2)


def median_area(area: float) -> float:
    """Return the pixels that make an independent one for a median.

    Parameters
    ----------
    area : `float`
        What `correlation_area` returns [pixel].
    """
    return max(1.0, _MEDIAN * area)


def threshold_area(area: float, threshold: float) -> float:
    """Return the pixels that make an independent one for the fraction beyond a threshold, on either side.

    Parameters
    ----------
    area : `float`
        What `correlation_area` returns [pixel].
    threshold : `float`
        Threshold in units of sigma; 0.6745 for the median absolute deviation.
    """
    return max(1.0, _threshold_factor(round(threshold, 6)) * area)


@cache
def _threshold_factor(threshold: float) -> float:
    """Return the area divided by 4 pi s^2.

    The covariance of two indicators of |x| > k is the sum over even m of rho^m [2 phi(k) h_(m-1)(k)]^2 / m, with h
    the Hermite polynomials normalised to unit variance.
    """
    probability = 2.0 * scipy.special.ndtr(-threshold)
    density = np.exp(-0.5 * threshold**2) / np.sqrt(2.0 * np.pi)
    lower, current = 1.0, threshold
    total = 0.0
    for m in range(2, _TERMS + 1):
        # `current` is h_(m-1).
        if m % 2 == 0:
            total += (2.0 * density * current) ** 2 / m**2
        lower, current = current, (threshold * current - np.sqrt(m - 1.0) * lower) / np.sqrt(m)
    return float(total / (probability * (1.0 - probability)))
