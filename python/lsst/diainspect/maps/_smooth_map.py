"""A quantity over a detector: a low-order polynomial, and the scatter of single stars about it.

The likelihood of stars with values v_i and errors e_i is that of Gaussians of variance e_i^2 + s^2 about the
polynomial, with s the scatter of single stars. Order and scatter are those of least Bayesian information criterion;
a star beyond the clipping threshold counts as one at it.
"""

from __future__ import annotations

__all__ = ["SmoothMap", "fit_smooth_map"]

from dataclasses import dataclass

import numpy as np
from lsst.images import Box

from ..psf import PolynomialField

_ITERATIONS = 12

_STARS_PER_TERM = 4
"""Fewest stars for each term of the polynomial."""


@dataclass(frozen=True)
class SmoothMap:
    """A quantity as a polynomial over a detector.

    Parameters
    ----------
    field : `PolynomialField`
        Terms.
    coefficients : `numpy.ndarray`, (n_terms,)
        Their coefficients.
    covariance : `numpy.ndarray`, (n_terms, n_terms)
        Their covariance.
    rms, rms_error : `float`
        Scatter of single stars about the polynomial beyond their errors, and its standard error; when the scatter is
        compatible with zero the error is the scatter that would be one sigma off.
    n_used, n_rejected : `int`
        Stars, and outliers among all.
    chi2_per_dof : `float`
        Reduced chi-square of the stars used with their own errors, without the scatter.
    """

    field: PolynomialField
    coefficients: np.ndarray
    covariance: np.ndarray
    rms: float = 0.0
    rms_error: float = 0.0
    n_used: int = 0
    n_rejected: int = 0
    chi2_per_dof: float = np.nan

    @classmethod
    def constant(cls, value: float, bounds: Box) -> SmoothMap:
        """Return the map of something that is the same everywhere and known."""
        return cls(PolynomialField(bounds, 0), np.array([value]), np.zeros((1, 1)))

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the value at positions [pixel], (N,)."""
        return self.field.evaluate(x, y) @ self.coefficients

    def error(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the standard error of the map at positions [pixel], (N,)."""
        terms = self.field.evaluate(x, y)
        return np.sqrt(np.maximum(np.einsum("np,pq,nq->n", terms, self.covariance, terms), 0.0))

    def scatter(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return by how much a star at positions [pixel] may differ from the map, one sigma, (N,).

        Scatter, its error and that of the map, in quadrature.
        """
        return np.sqrt(self.rms**2 + self.rms_error**2 + self.error(x, y) ** 2)


def fit_smooth_map(
    x: np.ndarray,
    y: np.ndarray,
    value: np.ndarray,
    error: np.ndarray,
    bounds: Box,
    *,
    max_order: int = 3,
    n_sigma: float = 4.0,
) -> SmoothMap | None:
    """Fit a map to stars.

    Parameters
    ----------
    x, y : `numpy.ndarray`, (N,)
        Positions [pixel].
    value, error : `numpy.ndarray`, (N,)
        What was measured of each star, and its standard error; stars that are not finite are left out.
    bounds : `lsst.images.Box`
        Region of the map.
    max_order : `int`, optional
        Largest order of the polynomial.
    n_sigma : `float`, optional
        Outliers are farther than this from the map in units of error and scatter.

    Returns
    -------
    fitted : `SmoothMap` or `None`
        Map of the order with the least Bayesian information criterion; None with fewer than four stars.
    """
    good = np.isfinite(value) & np.isfinite(error) & (error > 0) & np.isfinite(x) & np.isfinite(y)
    x, y, value, error = (array[good].astype(float) for array in (x, y, value, error))
    n = len(value)
    best, least = None, np.inf
    for order in range(max_order + 1):
        field = PolynomialField(bounds, order)
        if n < _STARS_PER_TERM * field.n_terms:
            break
        fitted, criterion = _fit(field, field.evaluate(x, y), value, error, n_sigma)
        if criterion < least:
            best, least = fitted, criterion
    return best


def _fit(
    field: PolynomialField, terms: np.ndarray, value: np.ndarray, error: np.ndarray, n_sigma: float
) -> tuple[SmoothMap, float]:
    """Fit at one order; returns the map and its information criterion."""
    n, n_terms = terms.shape
    # Start where no single star decides: at the median, with the scatter that is seen.
    residual = value - np.median(value)
    scatter2 = max((1.4826 * float(np.median(np.abs(residual)))) ** 2 - float(np.median(error)) ** 2, 0.0)
    used = np.abs(residual) < n_sigma * np.sqrt(error**2 + scatter2) + 1e-300
    used |= field.order > 0
    for _ in range(_ITERATIONS):
        variance = error**2 + scatter2
        weight = np.where(used, 1.0 / variance, 0.0)
        covariance = np.linalg.pinv((terms * weight[:, None]).T @ terms)
        coefficients = covariance @ ((terms * weight[:, None]).T @ value)
        residual = value - terms @ coefficients
        # Maximum likelihood of the scatter, each residual freed of what the polynomial took from it.
        leverage = np.einsum("np,pq,nq->n", terms, covariance, terms)
        freed = residual**2 + leverage
        scatter2 = max(float((weight**2 * (freed - error**2)).sum() / (weight**2).sum()), 0.0)
        within = np.abs(residual) < n_sigma * np.sqrt(error**2 + scatter2)
        if within.sum() >= max(n_terms + 1, n // 2):
            used = within
    variance = error**2 + scatter2
    pull2 = np.minimum(residual**2 / variance, n_sigma**2)
    criterion = float((pull2 + np.log(variance)).sum() + n_terms * np.log(n))
    scatter2_error = float(np.sqrt(2.0 / (1.0 / variance[used] ** 2).sum()))
    scatter = float(np.sqrt(scatter2))
    # Where the scatter is not significant, half the derivative of a root would diverge.
    scatter_error = min(scatter2_error / (2.0 * scatter) if scatter > 0 else np.inf, np.sqrt(scatter2_error))
    dof = int(used.sum()) - n_terms
    fitted = SmoothMap(
        field=field,
        coefficients=coefficients,
        covariance=covariance,
        rms=scatter,
        rms_error=float(scatter_error),
        n_used=int(used.sum()),
        n_rejected=int(n - used.sum()),
        chi2_per_dof=float(((residual[used] / error[used]) ** 2).sum() / dof) if dof > 0 else np.nan,
    )
    return fitted, criterion
