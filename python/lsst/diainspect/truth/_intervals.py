"""Confidence intervals of proportions, counts and differences of paired proportions."""

from __future__ import annotations

__all__ = ["LEVEL", "binomial_interval", "poisson_interval"]

from typing import Literal

import numpy as np
import numpy.typing as npt
from astropy.stats import binom_conf_interval
from scipy import stats

LEVEL = 0.6827
"""Confidence level of all intervals unless said: one sigma."""


def binomial_interval(
    n_successes: npt.ArrayLike,
    n_trials: npt.ArrayLike,
    level: float = LEVEL,
    kind: Literal["wilson", "jeffreys"] = "jeffreys",
) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval of a proportion (Brown, Cai & DasGupta 2001).

    Parameters
    ----------
    n_successes, n_trials : array-like
        Counts, of any shape.
    level : `float`, optional
        Confidence level.
    kind : {'wilson', 'jeffreys'}, optional
        Which interval.

    Returns
    -------
    lower, upper : `numpy.ndarray`
        Limits; NaN where there are no trials.
    """
    n_successes, n_trials = np.broadcast_arrays(
        np.asarray(n_successes, dtype=float), np.asarray(n_trials, dtype=float)
    )
    limits = np.full((2, *n_trials.shape), np.nan)
    some = n_trials > 0
    if some.any():
        limits[:, some] = binom_conf_interval(
            n_successes[some], n_trials[some], confidence_level=level, interval=kind
        )
    return limits[0], limits[1]


def poisson_interval(count: npt.ArrayLike, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Return the central interval of the mean of a Poisson distribution from one count (Garwood 1936).

    Parameters
    ----------
    count : array-like
        Counts.
    level : `float`, optional
        Confidence level.

    Returns
    -------
    lower, upper : `numpy.ndarray`
        Limits; the lower one of no count is 0.
    """
    count = np.asarray(count, dtype=float)
    tail = 0.5 * (1.0 - level)
    lower = np.where(count > 0, stats.gamma.ppf(tail, np.maximum(count, 1e-300)), 0.0)
    return lower, stats.gamma.isf(tail, count + 1.0)
