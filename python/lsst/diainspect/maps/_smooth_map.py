"""A quantity over a detector: a low-order polynomial, and the scatter of single stars about it.

The likelihood of stars with values v_i and errors e_i is that of Gaussians of variance e_i^2 + s^2 about the
polynomial, with s the scatter of single stars. Where the stars demand it, a part of them is odd: something happened
to these alone (a variable star, a blend), and their values are drawn from a wider Gaussian with a variance of its own.
Then s is the scatter of the others. Order, scatter and whether there are odd stars are those of least Bayesian
information criterion.
"""

from __future__ import annotations

__all__ = ["SmoothMap", "fit_smooth_map"]

from dataclasses import dataclass

import numpy as np
from lsst.images import Box

from ..psf import PolynomialField

_ITERATIONS = 40
_STARTING = 8

_FIRST_ODD = 0.2
_MOST_ODD = 0.6
"""Part of odd stars that the fit begins with, and the most there can be: the rest must be the rule."""

_LEAST_ODD = 3.0
"""Odd stars scatter at least this many times as much as the others, or the two cannot be told apart."""

_ODD_NEED = 10
"""Fewest stars among which odd ones can be told."""

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
    max_scatter: float = np.inf,
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
    max_scatter : `float`, optional
        Largest scatter of stars that follow the rule; those that scatter more are odd.

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
        terms = field.evaluate(x, y)
        for mixed in (False, True) if n >= _ODD_NEED else (False,):
            fitted, criterion = _fit(terms, field, value, error, max_scatter, mixed=mixed)
            if criterion < least:
                best, least = fitted, criterion
    return best


def _fit(
    terms: np.ndarray,
    field: PolynomialField,
    value: np.ndarray,
    error: np.ndarray,
    max_scatter: float,
    *,
    mixed: bool,
) -> tuple[SmoothMap, float]:
    """Fit at one order, with or without odd stars; returns the map and its information criterion."""
    n, n_terms = terms.shape
    coefficients, scatter2 = _robust_start(terms, value, error)
    scatter2 = min(scatter2, max_scatter**2)
    core, odd2, part = np.ones(n), 0.0, _FIRST_ODD if mixed else 0.0
    for _ in range(_ITERATIONS):
        variance = error**2 + scatter2
        residual = value - terms @ coefficients
        if mixed:
            wide = np.maximum(error**2 + odd2, _LEAST_ODD**2 * variance)
            regular, odd = (1.0 - part) * _density(residual, variance), part * _density(residual, wide)
            core = regular / np.maximum(regular + odd, np.finfo(float).tiny)
            weight = (1.0 - core) / wide
            odd2 = _scatter2(weight, residual**2, error, wide)
            part = float(np.clip(1.0 - core.mean(), 1.0 / n, _MOST_ODD))
        weight = core / variance
        covariance = np.linalg.pinv((terms * weight[:, None]).T @ terms)
        coefficients = covariance @ ((terms * weight[:, None]).T @ value)
        # Each residual is freed of what the polynomial took from it.
        leverage = np.einsum("np,pq,nq->n", terms, covariance, terms)
        scatter2 = _scatter2(weight, (value - terms @ coefficients) ** 2 + leverage, error, variance)
        scatter2 = min(scatter2, max_scatter**2)
    variance = error**2 + scatter2
    residual = value - terms @ coefficients
    density = (1.0 - part) * _density(residual, variance)
    if mixed:
        density += part * _density(residual, np.maximum(error**2 + odd2, _LEAST_ODD**2 * variance))
    n_parameters = n_terms + (2 if mixed else 0)
    criterion = float(
        -2.0 * np.log(np.maximum(density, np.finfo(float).tiny)).sum() + n_parameters * np.log(n)
    )
    scatter2_error = float(np.sqrt(2.0 / (core / variance**2).sum()))
    scatter = float(np.sqrt(scatter2))
    # Where the scatter is not significant, half the derivative of a root would diverge.
    scatter_error = min(scatter2_error / (2.0 * scatter) if scatter > 0 else np.inf, np.sqrt(scatter2_error))
    used = core > 0.5
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


def _robust_start(terms: np.ndarray, value: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, float]:
    """Return coefficients on which no single star decides, and the scatter squared that is seen about them.

    Least squares with the weights of a Cauchy distribution, begun at the median.
    """
    start = np.median(value)
    residual, shift = value - start, np.zeros(terms.shape[1])
    for _ in range(_STARTING):
        spread2 = (1.4826 * float(np.median(np.abs(residual)))) ** 2 + 1e-300
        weight = 1.0 / (error**2 + spread2 + residual**2)
        shift = np.linalg.pinv((terms * weight[:, None]).T @ terms) @ (
            (terms * weight[:, None]).T @ (value - start)
        )
        residual = value - start - terms @ shift
    # The first term is the constant.
    shift[0] += start
    scatter2 = (1.4826 * float(np.median(np.abs(residual)))) ** 2 - float(np.median(error)) ** 2
    return shift, max(scatter2, 0.0)


def _scatter2(weight: np.ndarray, squares: np.ndarray, error: np.ndarray, variance: np.ndarray) -> float:
    """Return the variance beyond the errors that is likeliest, one step of its fixed point."""
    own = weight / variance
    total = float(own.sum())
    return max(float((own * (squares - error**2)).sum()) / total, 0.0) if total > 0 else 0.0


def _density(residual: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-0.5 * residual**2 / variance) / np.sqrt(variance))
