"""Pulls: measured over its error, where the truth is zero."""

from __future__ import annotations

__all__ = ["PullSigma", "pull_sigma"]

from dataclasses import dataclass

import numpy as np
from astropy.stats import mad_std

_MAD_ERROR = 1.166
"""Standard error of a sigma from the median absolute deviation, times sqrt(N), for Gaussian noise."""

_LEAST = 5
"""Fewest pulls that make a sigma."""

_TAIL = 4.0


@dataclass(frozen=True)
class PullSigma:
    """Distribution of pulls.

    Parameters
    ----------
    sigma, sigma_error : `float`
        Robust standard deviation, 1 when errors are right, and its standard error.
    mean, mean_error : `float`
        Median of the pulls and its standard error.
    tail_fraction : `float`
        Fraction beyond 4 of its sigmas; 6e-5 for Gaussian noise.
    n : `int`
        Pulls.
    """

    sigma: float
    sigma_error: float
    mean: float
    mean_error: float
    tail_fraction: float
    n: int


def pull_sigma(value: np.ndarray, error: np.ndarray) -> PullSigma:
    """Describe the distribution of value / error.

    Parameters
    ----------
    value, error : `numpy.ndarray`, (N,)
        Measurements of what is zero in truth, and their errors; those that are not finite are left out.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        pull = np.asarray(value, dtype=float) / np.asarray(error, dtype=float)
    pull = pull[np.isfinite(pull)]
    n = len(pull)
    if n < _LEAST:
        return PullSigma(np.nan, np.nan, np.nan, np.nan, np.nan, n)
    sigma = float(mad_std(pull))
    middle = float(np.median(pull))
    tail = float((np.abs(pull - middle) > _TAIL * sigma).mean())
    # A median scatters by 1.253 times as much as a mean.
    return PullSigma(sigma, _MAD_ERROR * sigma / np.sqrt(n), middle, 1.253 * sigma / np.sqrt(n), tail, n)
