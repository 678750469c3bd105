"""Pulls, (measured - true) / error: bias, width and tails against those of a normal distribution."""

from __future__ import annotations

__all__ = ["TAIL", "PullStatistics", "pull_statistics"]

from dataclasses import dataclass

import numpy as np
from astropy.stats import mad_std

TAIL = 3.0
"""Pulls beyond this are tails; a normal distribution has 0.27 per cent of them."""


@dataclass(frozen=True)
class PullStatistics:
    """Bias, width and tails of pulls.

    Parameters
    ----------
    median : `float`
        Median; 0 without bias.
    sigma : `float`
        1.4826 times the median absolute deviation; 1 where errors are right.
    tail_fraction : `float`
        Part further than 3 from zero; 0.0027 for a normal distribution.
    n : `int`
        Number of finite pulls.
    """

    median: float
    sigma: float
    tail_fraction: float
    n: int


def pull_statistics(pulls: np.ndarray) -> PullStatistics:
    """Measure the distribution of pulls; those that are not finite are left out."""
    pulls = np.asarray(pulls, dtype=float)
    pulls = pulls[np.isfinite(pulls)]
    if len(pulls) == 0:
        return PullStatistics(np.nan, np.nan, np.nan, 0)
    return PullStatistics(
        float(np.median(pulls)),
        float(mad_std(pulls)) if len(pulls) > 1 else np.nan,
        float((np.abs(pulls) > TAIL).mean()),
        len(pulls),
    )
