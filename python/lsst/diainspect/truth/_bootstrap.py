"""Bootstrap over groups, such as the detectors of a survey, whose members share their errors.

Sources of one detector have one PSF model, one kernel and one registration, so they are not independent; detectors
are (Efron & Tibshirani 1993). Where there are too few groups to tell, single members are drawn.
"""

from __future__ import annotations

__all__ = ["Resampling", "bootstrap", "bootstrap_ratio", "percentile_interval"]

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._intervals import LEVEL

_LEAST_GROUPS = 5
"""With fewer groups their scatter says too little, and members are drawn instead."""

_LEAST_FRACTION = 0.9
"""Part of the resamples in which a statistic must exist for its interval to be given."""


@dataclass(frozen=True)
class Resampling:
    """How to resample.

    Parameters
    ----------
    n_resamples : `int`
        Number of resamples.
    level : `float`
        Confidence level of intervals.
    seed : `int`
        Seed of the random numbers; each use starts anew, so that results do not depend on the order of uses.
    """

    n_resamples: int = 300
    level: float = LEVEL
    seed: int = 1

    def rng(self) -> np.random.Generator:
        """Return random numbers."""
        return np.random.default_rng(self.seed)

    def multiplicities(self, n: int) -> np.ndarray:
        """Return how often each of n groups is drawn, (n_resamples, n)."""
        return self.rng().multinomial(n, np.full(n, 1.0 / n), size=self.n_resamples)


def percentile_interval(values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the central interval of resampled values, (n_resamples, ...), along the first axis.

    It is NaN where more than a tenth of the resamples have no value.
    """
    enough = np.isfinite(values).mean(axis=0) >= _LEAST_FRACTION
    tail = 50.0 * (1.0 - level)
    lower, upper = np.full((2, *values.shape[1:]), np.nan)
    if np.any(enough):
        inside = np.where(np.isfinite(values), values, np.nan)[:, enough] if values.ndim > 1 else values
        limits = np.nanpercentile(inside, [tail, 100.0 - tail], axis=0)
        if values.ndim > 1:
            lower[enough], upper[enough] = limits
        else:
            lower, upper = limits
    return lower, upper


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], groups: np.ndarray, resampling: Resampling
) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval of a statistic of rows.

    Parameters
    ----------
    statistic : callable
        Function of row numbers, which may repeat, that returns a number or an array.
    groups : `numpy.ndarray`, (N,), int
        Group of each row.
    resampling : `Resampling`
        How to resample.

    Returns
    -------
    lower, upper : `numpy.ndarray`
        Limits, of the statistic's shape.
    """
    if len(groups) == 0:
        empty = np.full_like(np.asarray(statistic(np.zeros(0, dtype=int)), dtype=float), np.nan)
        return empty, empty.copy()
    _, group = np.unique(groups, return_inverse=True)
    if group.max() + 1 < _LEAST_GROUPS:
        group = np.arange(len(groups))
    order = np.argsort(group, kind="stable")
    size = np.bincount(group)
    values = [
        np.asarray(statistic(np.repeat(order, np.repeat(drawn, size))), dtype=float)
        for drawn in resampling.multiplicities(len(size))
    ]
    return percentile_interval(np.array(values), resampling.level)


def bootstrap_ratio(
    numerator: np.ndarray, denominator: np.ndarray, resampling: Resampling
) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval of a ratio of sums over groups.

    Parameters
    ----------
    numerator, denominator : `numpy.ndarray`, (n_groups, ...)
        Sums within each group.
    resampling : `Resampling`
        How to resample.

    Returns
    -------
    lower, upper : `numpy.ndarray`
        Limits; NaN with too few groups.
    """
    numerator, denominator = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    if len(numerator) < _LEAST_GROUPS:
        empty = np.full(numerator.shape[1:], np.nan)
        return empty, empty.copy()
    drawn = resampling.multiplicities(len(numerator)).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.tensordot(drawn, numerator, axes=1) / np.tensordot(drawn, denominator, axes=1)
    return percentile_interval(values, resampling.level)
