"""Weighted linear least squares for many stamps at once."""

from __future__ import annotations

__all__ = ["LinearFit", "fit_linear"]

from dataclasses import dataclass, replace

import numpy as np

_MAX_CONDITION = 1e12
"""Normal matrices worse than this, after scaling to unit diagonal, are reported as not measured."""


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


def fit_linear(data: np.ndarray, design: np.ndarray, weight: np.ndarray) -> LinearFit:
    """Fit data = sum_p amplitude_p design_p in each stamp.

    Parameters
    ----------
    data : `numpy.ndarray`, (N, n_pixels)
        Pixels; those left out may be anything, NaN included.
    design : `numpy.ndarray`, (N, P, n_pixels)
        Columns of each stamp's model.
    weight : `numpy.ndarray`, (N, n_pixels)
        Inverse variances. A weight that is not positive and finite leaves the pixel out.

    Returns
    -------
    fit : `LinearFit`
        Amplitudes, covariances, chi-squares. A stamp with no more good pixels than columns, or with a singular
        normal matrix, has NaN amplitudes.
    """
    used = (weight > 0) & np.isfinite(weight)
    # Stamps are float32, in which a normal matrix would lose the digits that its inverse needs.
    weight = np.where(used, weight, 0.0).astype(float, copy=False)
    values = np.where(used, data, 0.0)
    weighted = design * weight[:, None, :]
    normal = weighted @ design.transpose(0, 2, 1)
    right = np.einsum("npi,ni->np", weighted, values)
    n_data = used.sum(axis=1)
    n_columns = design.shape[1]

    diagonal = np.diagonal(normal, axis1=1, axis2=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = 1.0 / np.sqrt(diagonal)
        scaled = normal * scale[:, :, None] * scale[:, None, :]
    solvable = np.isfinite(scaled).all(axis=(1, 2)) & (n_data > n_columns)
    scaled[~solvable] = np.eye(n_columns)
    solvable &= np.linalg.cond(scaled) < _MAX_CONDITION
    scaled[~solvable] = np.eye(n_columns)

    covariance = np.linalg.inv(scaled) * np.where(solvable[:, None], scale, np.nan)[:, :, None]
    covariance *= np.where(solvable[:, None], scale, np.nan)[:, None, :]
    amplitude = np.einsum("npq,nq->np", covariance, right)
    residual = values - np.einsum("np,npi->ni", amplitude, design)
    chi2 = np.einsum("ni,ni,ni->n", residual, residual, weight)
    return LinearFit(amplitude, covariance, chi2, n_data)
