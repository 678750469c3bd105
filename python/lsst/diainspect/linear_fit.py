"""Weighted linear least squares for many stamps at once."""

from __future__ import annotations

__all__ = ["LinearFit", "add_products", "fit_linear"]

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .compiled import compiled

_MAX_CONDITION = {np.dtype(np.float32): 1e5, np.dtype(np.float64): 1e12}
"""Normal matrices worse than this, after scaling to unit diagonal, are reported as not measured. Sums over the pixels
of a stamp in single precision are good to some 1e-6."""


@dataclass(frozen=True)
class LinearFit:
    """Result of `fit_linear` for N stamps and P columns.

    Parameters
    ----------
    amplitude : `numpy.ndarray`, (N, P)
        Best-fitting amplitudes; NaN where a fit was not possible.
    covariance : `numpy.ndarray`, (N, P, P)
        Their covariance.
    chi2 : `numpy.ndarray`, (N,)
        Weighted sum of squared residuals.
    n_data : `numpy.ndarray`, (N,)
        Pixels with positive weight.
    """

    amplitude: np.ndarray
    covariance: np.ndarray
    chi2: np.ndarray
    n_data: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Standard errors of the amplitudes, (N, P)."""
        return np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2))

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
    used = (weight > 0) & np.isfinite(weight)
    if used.all():
        weight = np.asarray(weight, dtype=dtype)
        values = np.asarray(data, dtype=dtype)
    else:
        weight = np.where(used, weight, 0.0).astype(dtype, copy=False)
        values = np.where(used, data, 0.0).astype(dtype, copy=False)
    design = np.asarray(design, dtype=dtype)
    n_stamps, n_columns = design.shape[:2]
    normal, right = np.empty((n_stamps, n_columns, n_columns)), np.empty((n_stamps, n_columns))
    add_products(values, design, weight, normal, right)
    n_data = used.sum(axis=1)

    diagonal = np.diagonal(normal, axis1=1, axis2=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = 1.0 / np.sqrt(diagonal)
        scaled = normal * scale[:, :, None] * scale[:, None, :]
    solvable = np.isfinite(scaled).all(axis=(1, 2)) & (n_data > n_columns)
    scaled[~solvable] = np.eye(n_columns)
    inverse, condition = _invert(scaled)
    solvable &= condition < _MAX_CONDITION[dtype]

    scale = np.where(solvable[:, None], scale, np.nan)
    covariance = inverse * scale[:, :, None] * scale[:, None, :]
    amplitude = np.einsum("npq,nq->np", covariance, right)
    chi2 = np.empty(n_stamps)
    _add_residuals(values, design, weight, amplitude.astype(dtype), chi2)
    return LinearFit(amplitude, covariance, chi2, n_data)


@compiled
def add_products(
    data: np.ndarray, design: np.ndarray, weight: np.ndarray, normal: np.ndarray, right: np.ndarray
) -> None:
    """Fill the sums over pixels A^T W A and A^T W d of a least-squares fit to each stamp.

    Parameters
    ----------
    data : `numpy.ndarray`, (N, n_pixels)
        Pixels d, finite.
    design : `numpy.ndarray`, (N, P, n_pixels)
        Columns A of each stamp's model.
    weight : `numpy.ndarray`, (N, n_pixels)
        Inverse variances W.
    normal, right : `numpy.ndarray`, (N, P, P) and (N, P)
        Where the sums go.
    """
    n_columns = design.shape[1]
    weighted = np.empty(data.shape[1], data.dtype)
    for n in range(len(data)):
        for p in range(n_columns):
            for i in range(data.shape[1]):
                weighted[i] = design[n, p, i] * weight[n, i]
            total = weighted.dtype.type(0)
            for i in range(data.shape[1]):
                total += weighted[i] * data[n, i]
            right[n, p] = total
            for q in range(p + 1):
                total = weighted.dtype.type(0)
                for i in range(data.shape[1]):
                    total += weighted[i] * design[n, q, i]
                normal[n, p, q] = normal[n, q, p] = total


@compiled
def _add_residuals(
    data: np.ndarray, design: np.ndarray, weight: np.ndarray, amplitude: np.ndarray, chi2: np.ndarray
) -> None:
    """Fill the weighted sums of squared residuals."""
    residual = np.empty(data.shape[1], data.dtype)
    for n in range(len(data)):
        for i in range(data.shape[1]):
            residual[i] = data[n, i]
        for p in range(design.shape[1]):
            for i in range(data.shape[1]):
                residual[i] -= amplitude[n, p] * design[n, p, i]
        total = residual.dtype.type(0)
        for i in range(data.shape[1]):
            total += residual[i] * residual[i] * weight[n, i]
        chi2[n] = total


def _invert(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Invert matrices (N, P, P); return the inverses and the condition numbers, infinite where there is none."""
    try:
        inverse = np.linalg.inv(matrices)
    except np.linalg.LinAlgError:
        singular = ~(np.linalg.cond(matrices) < _MAX_CONDITION[np.dtype(float)])
        inverse = np.linalg.inv(np.where(singular[:, None, None], np.eye(matrices.shape[-1]), matrices))
        inverse[singular] = np.inf
    with np.errstate(invalid="ignore", over="ignore"):
        condition = np.sqrt((matrices**2).sum(axis=(1, 2)) * (inverse**2).sum(axis=(1, 2)))
    return np.where(np.isfinite(inverse), inverse, np.nan), condition
