"""Completeness: the part of the true changes that was detected, in bins and as a smooth curve."""

from __future__ import annotations

__all__ = ["DetectionCurve", "bin_completeness", "fit_detection_curve"]

from dataclasses import dataclass

import astropy.units as u
import numpy as np
import scipy.optimize
from astropy.table import Column, Table
from scipy.special import ndtr, ndtri

from ._intervals import LEVEL, binomial_interval

_LEAST_EACH = 5
"""A curve is fitted to at least so many detected and so many missed objects."""


def bin_completeness(
    values: np.ndarray, detected: np.ndarray, edges: np.ndarray, level: float = LEVEL
) -> Table:
    """Measure completeness in bins of a quantity.

    Parameters
    ----------
    values : `numpy.ndarray`, (N,)
        The quantity of each object; those that are NaN are left out.
    detected : `numpy.ndarray`, (N,), bool
        Which of them were detected.
    edges : `numpy.ndarray`, (n_bins + 1,)
        Edges of the bins.
    level : `float`, optional
        Confidence level of the intervals.

    Returns
    -------
    completeness : `astropy.table.Table`
        One row a bin: ``binLow``, ``binHigh``, ``mean`` (of the values in it), ``n``, ``nDetected``,
        ``completeness``, ``lower``, ``upper`` (Jeffreys).
    """
    values, detected = np.asarray(values, dtype=float), np.asarray(detected, dtype=bool)
    number = np.digitize(values, edges) - 1
    number[~np.isfinite(values)] = -1
    n_bins = len(edges) - 1
    inside = (number >= 0) & (number < n_bins)
    n = np.bincount(number[inside], minlength=n_bins)
    n_detected = np.bincount(number[inside & detected], minlength=n_bins)
    lower, upper = binomial_interval(n_detected, n, level)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.bincount(number[inside], weights=values[inside], minlength=n_bins) / n
        completeness = n_detected / n
    table = Table()
    for name, column, doc in (
        ("binLow", np.asarray(edges[:-1], dtype=float), "Lower edge."),
        ("binHigh", np.asarray(edges[1:], dtype=float), "Upper edge."),
        ("mean", mean, "Mean of the values in the bin."),
        ("n", n, "Objects."),
        ("nDetected", n_detected, "Detected objects."),
        ("completeness", completeness, "nDetected / n."),
        ("lower", lower, "Lower limit of completeness."),
        ("upper", upper, "Upper limit of completeness."),
    ):
        table[name] = Column(column, unit=u.dimensionless_unscaled, description=doc)
    return table


@dataclass(frozen=True)
class DetectionCurve:
    """Completeness c(v) = plateau Phi((v - middle) / width), Phi the normal distribution.

    A threshold in S/N with Gaussian noise makes exactly this; width is negative where completeness falls with v.

    Parameters
    ----------
    middle, width : `float`
        Where it is half of the plateau, and how wide the step is, in the unit of v.
    plateau : `float`
        Completeness far from the limit.
    limits : `tuple` [`float`, `float`]
        Range of the values it was fitted to.
    """

    middle: float
    width: float
    plateau: float
    limits: tuple[float, float]

    def at(self, values: np.ndarray) -> np.ndarray:
        """Return the completeness at values."""
        return self.plateau * ndtr((np.asarray(values, dtype=float) - self.middle) / self.width)

    def solve(self, completeness: float) -> float:
        """Return the value at which a completeness is reached; NaN where it is not, within the range of the data."""
        if not 0 < completeness < self.plateau:
            return float("nan")
        value = self.middle + self.width * float(ndtri(completeness / self.plateau))
        return value if self.limits[0] <= value <= self.limits[1] else float("nan")


def fit_detection_curve(
    values: np.ndarray, detected: np.ndarray, *, rising: bool = True, start: DetectionCurve | None = None
) -> DetectionCurve | None:
    """Fit a completeness curve to single objects by maximum likelihood, no bins needed.

    Parameters
    ----------
    values : `numpy.ndarray`, (N,)
        The quantity of each object; those that are NaN are left out.
    detected : `numpy.ndarray`, (N,), bool
        Which of them were detected.
    rising : `bool`, optional
        Completeness rises with the quantity, as with S/N; it falls with magnitudes.
    start : `DetectionCurve`, optional
        Where to start, such as the fit to all when a resample is fitted.

    Returns
    -------
    curve : `DetectionCurve` or `None`
        The curve; None where fewer than 5 objects were detected or missed.
    """
    values, detected = np.asarray(values, dtype=float), np.asarray(detected, dtype=bool)
    good = np.isfinite(values)
    values, detected = values[good], detected[good]
    n_detected = int(detected.sum())
    if min(n_detected, len(values) - n_detected) < _LEAST_EACH:
        return None
    low, high = float(values.min()), float(values.max())
    # Half the bulk of the data; S/N has a long tail that says nothing about the width of the step.
    scale = max(
        0.5 * float(np.subtract(*np.quantile(values, [0.84, 0.16]))), 1e-9 * max(abs(low), abs(high), 1.0)
    )
    sign = 1.0 if rising else -1.0
    centre = float(np.median(values[~detected]) + np.median(values[detected])) / 2.0

    def log_likelihood(parameters: np.ndarray) -> float:
        middle, log_width, plateau = parameters
        probability = plateau * ndtr(sign * (values - centre - scale * middle) / (scale * np.exp(log_width)))
        probability = np.clip(probability, 1e-9, 1.0 - 1e-9)
        return -float(np.log(np.where(detected, probability, 1.0 - probability)).sum())

    bounds = [((low - centre) / scale, (high - centre) / scale), (-6.0, 4.0), (0.01, 1.0)]
    if start is not None:
        starts = [((start.middle - centre) / scale, np.log(abs(start.width) / scale), start.plateau)]
    else:
        edge = float(np.quantile(values[detected], 0.05 if rising else 0.95))
        starts = [(0.0, 0.0, 0.95), ((edge - centre) / scale, -2.0, 0.9)]
    fits = [
        scipy.optimize.minimize(
            log_likelihood,
            np.clip(point, [b[0] for b in bounds], [b[1] for b in bounds]),
            bounds=bounds,
            method="L-BFGS-B",
        )
        for point in starts
    ]
    middle, log_width, plateau = min(fits, key=lambda fit: fit.fun).x
    return DetectionCurve(
        centre + scale * middle, sign * scale * float(np.exp(log_width)), float(plateau), (low, high)
    )
