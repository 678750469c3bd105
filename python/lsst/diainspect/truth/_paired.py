"""Two methods on the same objects: discordant pairs tell which finds more (McNemar 1947)."""

from __future__ import annotations

__all__ = ["PairedDetection", "pair_detections", "paired_detection"]

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from scipy import stats

from ._intervals import LEVEL


@dataclass(frozen=True)
class PairedDetection:
    """Detection of the same objects by two methods.

    Parameters
    ----------
    n_both, n_only_first, n_only_second, n_neither : `int`
        Objects by who detected them.
    difference : `float`
        Completeness of the first method minus that of the second.
    lower, upper : `float`
        Its interval.
    p_value : `float`
        Probability of discordant counts as unequal as these or more so if both are equally good: exact, two-sided.
    """

    n_both: int
    n_only_first: int
    n_only_second: int
    n_neither: int
    difference: float
    lower: float
    upper: float
    p_value: float


def paired_detection(first: np.ndarray, second: np.ndarray, level: float = LEVEL) -> PairedDetection:
    """Compare two methods on the same objects.

    The interval of the difference is the adjusted Wald interval of Bonett & Price (2012), with one object added to
    each discordant count; the p-value is that of the binomial distribution of the discordant pairs.

    Parameters
    ----------
    first, second : `numpy.ndarray`, (N,), bool
        Which objects each method detected.
    level : `float`, optional
        Confidence level of the interval.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"Both methods need the same objects, got {first.shape} and {second.shape} of them.")
    n = len(first)
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    counts = (int((first & second).sum()), only_first, only_second, int((~first & ~second).sum()))
    if n == 0:
        return PairedDetection(*counts, np.nan, np.nan, np.nan, np.nan)
    p_first, p_second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    middle = p_first - p_second
    half = float(stats.norm.isf(0.5 * (1.0 - level))) * np.sqrt((p_first + p_second - middle**2) / (n + 2))
    discordant = only_first + only_second
    p_value = float(stats.binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return PairedDetection(
        *counts,
        (only_first - only_second) / n,
        max(-1.0, middle - half),
        min(1.0, middle + half),
        p_value,
    )


def pair_detections(first: Table, second: Table) -> tuple[np.ndarray, np.ndarray]:
    """Find the objects that two match tables share.

    Parameters
    ----------
    first, second : `astropy.table.Table`
        Match tables of two methods, of one detector or many; the same (visit, detector, truthId) is one object.

    Returns
    -------
    rows_first, rows_second : `numpy.ndarray`
        Rows of the objects that lie in the fiducial area of both.
    """
    keys = []
    rows = []
    for table in (first, second):
        own = np.flatnonzero(np.asarray(table["isTruth"]) & np.asarray(table["isFiducial"]))
        key = np.zeros(len(own), dtype=[("visit", "i8"), ("detector", "i8"), ("truthId", "i8")])
        for name in ("visit", "detector", "truthId"):
            key[name] = np.asarray(table[name])[own]
        rows.append(own)
        keys.append(key)
    _, here, there = np.intersect1d(keys[0], keys[1], return_indices=True)
    return rows[0][here], rows[1][there]
