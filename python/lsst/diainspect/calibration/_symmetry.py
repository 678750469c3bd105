"""Purity from symmetry: noise and artefacts make as many negative detections as positive ones."""

from __future__ import annotations

__all__ = ["SymmetryPurity", "symmetry_purity"]

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SymmetryPurity:
    """Purity of the positive detections, its error, and the counts of both signs."""

    purity: float
    error: float
    n_positive: int
    n_negative: int


def symmetry_purity(snr: np.ndarray, threshold: float) -> SymmetryPurity:
    """Estimate the purity of the positive detections above a threshold as 1 - n_negative / n_positive.

    It holds where nothing real is negative: the template holds no transients or variables at their brightest.
    Otherwise it is too low.

    Parameters
    ----------
    snr : `numpy.ndarray`, (N,)
        Signal-to-noise ratios with sign.
    threshold : `float`
        Least modulus.

    Returns
    -------
    purity : `SymmetryPurity`
        NaN without positive detections; negative where noise has made more negative than positive ones. The error is
        that of two Poisson counts.
    """
    snr = np.asarray(snr, dtype=float)
    n_positive, n_negative = int((snr >= threshold).sum()), int((snr <= -threshold).sum())
    if n_positive == 0:
        return SymmetryPurity(np.nan, np.nan, n_positive, n_negative)
    ratio = n_negative / n_positive
    error = np.sqrt(n_negative + ratio**2 * n_positive) / n_positive
    return SymmetryPurity(1.0 - ratio, float(error), n_positive, n_negative)
