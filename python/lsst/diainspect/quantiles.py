"""Quantiles of many pixels: several times as fast as those of numpy, which partition the numbers about two places."""

from __future__ import annotations

__all__ = ["median", "quantile"]

import numpy as np


def quantile(values: np.ndarray, fraction: float) -> float:
    """Return a quantile, between two of the numbers interpolated linearly as by `numpy.quantile`.

    Parameters
    ----------
    values : `numpy.ndarray`, (N,)
        Numbers, none of them NaN; of none at all the quantile is NaN.
    fraction : `float`
        Fraction of the numbers that are below.
    """
    if len(values) == 0:
        return float("nan")
    place = fraction * (len(values) - 1)
    first = int(place)
    # Only a partition about one place makes use of the vector units of the processor.
    ordered = np.partition(values, first)
    low = float(ordered[first])
    if place == first:
        return low
    return low + (place - first) * (float(ordered[first + 1 :].min()) - low)


def median(values: np.ndarray) -> float:
    """Return the median of numbers (N,), none of them NaN."""
    return quantile(values, 0.5)
