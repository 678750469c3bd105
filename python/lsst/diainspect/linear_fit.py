"""Weighted linear least squares for many stamps at once."""

from __future__ import annotations

__all__ = ["Fit", "LinearFit", "fit_linear", "invert_normal"]

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .compiled import compiled

_MAX_CONDITION = {np.dtype(np.float32): 1e5, np.dtype(np.float64): 1e12}
"""Normal matrices worse than this, after scaling to unit diagonal, are reported as not measured. Sums over the pixels
of a stamp in single precision are good to some 1e-6."""


@dataclass(frozen=True)
class Fit:
    """Amplitudes of N linear fits.

    Parameters
    ----------
    amplitude : `numpy.ndarray`, (N, P)
        Best-fitting amplitudes; NaN where a fit was not possible.
    covariance : `numpy.ndarray`, (N, P, P)
        Their covariance.
    chi2 : `numpy.ndarray`, (N,)
        Weighted sum of squared residuals.
    """

    amplitude: np.ndarray
    covariance: np.ndarray
    chi2: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Standard errors of the amplitudes, (N, P)."""
        return np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2))

    def rise(self, columns: Sequence[int]) -> np.ndarray:
        """Return by how much chi-square rises when amplitudes are set to zero and the others refitted, (N,)."""
        rise = np.full(len(self.amplitude), np.nan)
        _rise_all(self.amplitude, self.covariance, np.array(columns), rise)
        return rise


@dataclass(frozen=True)
class LinearFit(Fit):
    """Fits to the pixels of N stamps.

    Parameters
    ----------
    n_data : `numpy.ndarray`, (N,)
        Pixels with positive weight.
    """

    n_data: np.ndarray

    def with_errors_from_residuals(self) -> LinearFit:
        """Return the fit with its covariance scaled to a reduced chi-square of one.

        For weights that say only how pixels compare with each other, not what their noise is.
        """
        degrees = self.n_data - self.amplitude.shape[1]
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.where(degrees > 0, self.chi2 / degrees, np.nan)
        return replace(self, covariance=self.covariance * scale[:, None, None])


def fit_linear(
    data: np.ndarray, design: np.ndarray, weight: np.ndarray, *, dtype: npt.DTypeLike = np.float64
) -> LinearFit:
    """Fit data = sum_p amplitude_p design_p in each stamp.

    Parameters
    ----------
    data : `numpy.ndarray`, (N, n_pixels)
        Pixels; those left out may be anything, NaN included.
    design : `numpy.ndarray`, (N, P, n_pixels)
        Columns of each stamp's model.
    weight : `numpy.ndarray`, (N, n_pixels)
        Inverse variances. A weight that is not positive and finite leaves the pixel out.
    dtype : dtype, optional
        Precision of the sums over pixels. With float32 and float32 arrays the fit is five times as fast; it is meant
        for columns that are not nearly degenerate, and a normal matrix of condition above 1e5 counts as singular.

    Returns
    -------
    fit : `LinearFit`
        Amplitudes, covariances, chi-squares. A stamp with no more good pixels than columns, or with a singular
        normal matrix, has NaN amplitudes.
    """
    dtype = np.dtype(dtype)
    design = np.asarray(design, dtype=dtype)
    n_stamps, n_columns = design.shape[:2]
    amplitude = np.full((n_stamps, n_columns), np.nan)
    covariance = np.full((n_stamps, n_columns, n_columns), np.nan)
    chi2, n_data = np.full(n_stamps, np.nan), np.empty(n_stamps, dtype=int)
    _fit_all(
        np.asarray(data, dtype=dtype),
        design,
        np.asarray(weight, dtype=dtype),
        _MAX_CONDITION[dtype],
        amplitude,
        covariance,
        chi2,
        n_data,
    )
    return LinearFit(amplitude, covariance, chi2, n_data)


@compiled
def _fit_all(
    data: np.ndarray,
    design: np.ndarray,
    weight: np.ndarray,
    max_condition: float,
    amplitude: np.ndarray,
    covariance: np.ndarray,
    chi2: np.ndarray,
    n_data: np.ndarray,
) -> None:
    """Fit each stamp; what is fitted of those that cannot be stays as it is."""
    n_columns, n_pixels = design.shape[1:]
    zero = data.dtype.type(0)
    inverse_variance, pixels = np.empty(n_pixels, data.dtype), np.empty(n_pixels, data.dtype)
    weighted = np.empty(n_pixels, data.dtype)
    normal, inverse = np.empty((n_columns, n_columns)), np.empty((n_columns, n_columns))
    right, scale = np.empty(n_columns), np.empty(n_columns)
    for n in range(len(data)):
        number = 0
        for i in range(n_pixels):
            used = (weight[n, i] > zero) & (weight[n, i] < np.inf)
            inverse_variance[i] = weight[n, i] if used else zero
            pixels[i] = data[n, i] if used else zero
            number += used
        n_data[n] = number
        for p in range(n_columns):
            for i in range(n_pixels):
                weighted[i] = design[n, p, i] * inverse_variance[i]
            total = zero
            for i in range(n_pixels):
                total += weighted[i] * pixels[i]
            right[p] = total
            for q in range(p + 1):
                total = zero
                for i in range(n_pixels):
                    total += weighted[i] * design[n, q, i]
                normal[p, q] = normal[q, p] = total
        if number <= n_columns or not invert_normal(normal, 0.0, inverse, scale):
            continue
        here, there = 0.0, 0.0
        for p in range(n_columns):
            for q in range(n_columns):
                here += normal[p, q] ** 2
                there += inverse[p, q] ** 2
        if not np.sqrt(here * there) < max_condition:
            continue
        for p in range(n_columns):
            amplitude[n, p] = 0.0
            for q in range(n_columns):
                covariance[n, p, q] = inverse[p, q] * scale[p] * scale[q]
                amplitude[n, p] += covariance[n, p, q] * right[q]
        # The pixels become the residuals.
        for p in range(n_columns):
            factor = data.dtype.type(amplitude[n, p])
            for i in range(n_pixels):
                pixels[i] -= factor * design[n, p, i]
        total = zero
        for i in range(n_pixels):
            total += pixels[i] * pixels[i] * inverse_variance[i]
        chi2[n] = total


@compiled
def _rise_all(amplitude: np.ndarray, covariance: np.ndarray, columns: np.ndarray, rise: np.ndarray) -> None:
    """Fill a^T C^-1 a of some columns; where it is not known the rise stays as it is."""
    n_columns = len(columns)
    block, inverse = np.empty((n_columns, n_columns)), np.empty((n_columns, n_columns))
    scale = np.empty(n_columns)
    for n in range(len(rise)):
        for p in range(n_columns):
            for q in range(n_columns):
                block[p, q] = covariance[n, columns[p], columns[q]]
        if not invert_normal(block, 0.0, inverse, scale):
            continue
        total = 0.0
        for p in range(n_columns):
            for q in range(n_columns):
                pair = amplitude[n, columns[p]] * scale[p] * amplitude[n, columns[q]] * scale[q]
                total += inverse[p, q] * pair
        rise[n] = total


@compiled
def invert_normal(matrix: np.ndarray, ridge: float, inverse: np.ndarray, scale: np.ndarray) -> bool:
    """Scale a normal matrix to unit diagonal and invert it.

    A matrix of a few rows takes less time than a call of LAPACK.

    Parameters
    ----------
    matrix : `numpy.ndarray`, (P, P)
        Symmetric and positive; scaled in place.
    ridge : `float`
        What is added to the diagonal before the inversion.
    inverse : `numpy.ndarray`, (P, P)
        Inverse of the scaled matrix.
    scale : `numpy.ndarray`, (P,)
        Factors of rows and columns: the matrix that was given has the inverse scale_p inverse_pq scale_q.

    Returns
    -------
    possible : `bool`
        Whether all numbers were finite and no pivot vanished.
    """
    n = len(matrix)
    for p in range(n):
        scale[p] = 1.0 / np.sqrt(matrix[p, p])
    for p in range(n):
        for q in range(n):
            matrix[p, q] *= scale[p] * scale[q]
            if not np.isfinite(matrix[p, q]):
                return False
            inverse[p, q] = matrix[p, q]
        inverse[p, p] += ridge
    # Gauss and Jordan's elimination in place; a positive matrix needs no exchange of rows.
    for p in range(n):
        pivot = inverse[p, p]
        if pivot == 0.0 or not np.isfinite(pivot):
            return False
        inverse[p, p] = 1.0
        for q in range(n):
            inverse[p, q] /= pivot
        for r in range(n):
            if r != p:
                factor = inverse[r, p]
                inverse[r, p] = 0.0
                for q in range(n):
                    inverse[r, q] -= factor * inverse[p, q]
    return True
