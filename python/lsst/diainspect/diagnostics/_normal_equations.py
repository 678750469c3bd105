"""Least squares for many stamps, of many models that share columns: the normal matrix is made once."""

from __future__ import annotations

__all__ = ["Fit", "NormalEquations"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..compiled import compiled

_MAX_CONDITION = 1e5
"""Normal matrices of float32 columns with an inverse larger than this, scaled to unit diagonal, are not solved: an
amplitude's error would be three hundred times that of a fit without the other columns."""

_LEAST_PIVOT = 1e-9

_LEAST_FREEDOM = 0.1
"""Least part of a pixel's noise that a fit is taken to leave in its residual."""


@dataclass(frozen=True)
class Fit:
    """Amplitudes (N, P) with their covariances (N, P, P) and chi-squares (N,); NaN where not solvable."""

    amplitude: np.ndarray
    covariance: np.ndarray
    chi2: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Standard errors of the amplitudes, (N, P)."""
        return np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2))

    def rise(self, columns: Sequence[int]) -> np.ndarray:
        """Return by how much chi-square rises when amplitudes are set to zero and the others refitted, (N,)."""
        index = list(columns)
        block = self.covariance[:, index][:, :, index]
        values = self.amplitude[:, index]
        rise = np.full(len(values), np.nan)
        good = np.isfinite(block).all(axis=(1, 2)) & np.isfinite(values).all(axis=1)
        solved = np.linalg.solve(block[good], values[good][..., None])[..., 0]
        rise[good] = np.einsum("ni,ni->n", values[good], solved)
        return rise


@dataclass(frozen=True)
class NormalEquations:
    """A^T W A, A^T W d and d^T W d of N stamps with P columns.

    Parameters
    ----------
    matrix : `numpy.ndarray`, (N, P, P)
        Normal matrices.
    right : `numpy.ndarray`, (N, P)
        Right-hand sides.
    power : `numpy.ndarray`, (N,)
        Chi-square without a model.
    n_data : `numpy.ndarray`, (N,)
        Pixels with weight.
    noise : `numpy.ndarray`, (N, P, P), optional
        Covariance of ``right``. It is ``matrix`` where the weights are the inverse of the noise's covariance; with
        correlated noise it is not, and errors follow from it.
    """

    matrix: np.ndarray
    right: np.ndarray
    power: np.ndarray
    n_data: np.ndarray
    noise: np.ndarray | None = None

    @classmethod
    def from_pixels(cls, pixels: np.ndarray, columns: np.ndarray, weight: np.ndarray) -> NormalEquations:
        """Add up pixels.

        Parameters
        ----------
        pixels : `numpy.ndarray`, (N, K)
            Data; NaN where the weight is zero allowed.
        columns : `numpy.ndarray`, (N, P, K), float32
            Models. They are overwritten.
        weight : `numpy.ndarray`, (N, K)
            Inverse variances, zero to leave a pixel out.
        """
        n, n_columns = columns.shape[:2]
        matrix, right, power = np.empty((n, n_columns, n_columns)), np.empty((n, n_columns)), np.empty(n)
        n_data = np.empty(n, dtype=int)
        _add_up(pixels, columns, weight, matrix, right, power, n_data)
        return cls(matrix, right, power, n_data)

    def replaced(self, rows: np.ndarray, other: NormalEquations) -> NormalEquations:
        """Return these equations with those of some rows replaced by others."""
        arrays = {}
        for name in ("matrix", "right", "power", "n_data"):
            arrays[name] = getattr(self, name).copy()
            arrays[name][rows] = getattr(other, name)
        noise = None
        if self.noise is not None or other.noise is not None:
            noise = (self.matrix if self.noise is None else self.noise).copy()
            noise[rows] = other.matrix if other.noise is None else other.noise
        return NormalEquations(**arrays, noise=noise)

    def with_noise_from_residuals(
        self, pixels: np.ndarray, columns: np.ndarray, weight: np.ndarray, fitted: Sequence[int]
    ) -> NormalEquations:
        """Return the equations with the noise that the residuals of a fit have.

        For weights that say only how pixels compare with each other, not what their noise is. They are scaled to a
        reduced chi-square of one; the noise of bright pixels, which are noisier than the weights know, is that of
        their own residuals: sum_i x_i x_i^T r_i^2 / (1 - h_i), with x_i the columns at pixel i and h_i its leverage
        (MacKinnon & White 1985, HC2).

        Parameters
        ----------
        pixels : `numpy.ndarray`, (N, K)
            Data.
        columns : `numpy.ndarray`, (N, P, K), float32
            Columns, times the roots of the weights, as `from_pixels` leaves them.
        weight : `numpy.ndarray`, (N, K)
            Weights.
        fitted : sequence [`int`]
            Columns of the fit.
        """
        fit = self.solve(fitted)
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = (self.n_data - len(fitted)) / fit.chi2
        scale = np.where((scale > 0) & np.isfinite(scale), scale, np.nan)
        amplitude = np.nan_to_num(fit.amplitude).astype(np.float32)
        inverse = np.nan_to_num(fit.covariance).astype(np.float32)
        root = np.sqrt(weight, dtype=np.float32)
        own = columns[:, list(fitted)]
        residual = np.where(weight > 0, pixels, 0.0) * root - np.matmul(amplitude[:, None], own)[:, 0]
        leverage = np.einsum("npk,npk->nk", own, inverse @ own)
        freed = columns * (residual / np.sqrt(np.maximum(1.0 - leverage, _LEAST_FREEDOM)))[:, None]
        noise = np.matmul(freed, freed.transpose(0, 2, 1)).astype(float) * (scale**2)[:, None, None]
        return NormalEquations(
            self.matrix * scale[:, None, None],
            self.right * scale[:, None],
            self.power * scale,
            self.n_data,
            noise,
        )

    def solve(
        self,
        columns: Sequence[int],
        prior_mean: np.ndarray | None = None,
        prior_precision: np.ndarray | None = None,
    ) -> Fit:
        """Solve for some of the columns, the others left out.

        Parameters
        ----------
        columns : sequence [`int`]
            Columns of the model, Q of P.
        prior_mean, prior_precision : `numpy.ndarray`, (N, Q), optional
            Gaussian priors on the amplitudes: means and inverse variances, zero for none.

        Returns
        -------
        fit : `Fit`
            Amplitudes. The chi-square is that of the pixels alone.
        """
        index = list(columns)
        n = len(index)
        data_matrix = self.matrix[:, index][:, :, index]
        right = self.right[:, index]
        matrix = data_matrix
        if prior_precision is not None:
            mean = np.zeros_like(right) if prior_mean is None else prior_mean
            matrix = matrix + prior_precision[:, :, None] * np.eye(n)
            right = right + prior_precision * mean
        diagonal = np.diagonal(matrix, axis1=1, axis2=2)
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = 1.0 / np.sqrt(diagonal)
            scaled = matrix * scale[:, :, None] * scale[:, None, :]
        solvable = np.isfinite(scaled).all(axis=(1, 2)) & np.isfinite(right).all(axis=1) & (self.n_data > n)
        scaled[~solvable] = np.eye(n)
        # A singular matrix becomes one with a huge inverse, which is found out below.
        inverse = np.linalg.inv(scaled + _LEAST_PIVOT * np.eye(n))
        solvable &= np.abs(inverse).max(axis=(1, 2)) < _MAX_CONDITION
        scale = np.where(solvable[:, None], scale, np.nan)
        inverse *= scale[:, :, None] * scale[:, None, :]
        amplitude = np.einsum("npq,nq->np", inverse, right)
        chi2 = self.power - 2.0 * np.einsum("np,np->n", amplitude, self.right[:, index])
        chi2 += np.einsum("np,npq,nq->n", amplitude, data_matrix, amplitude)
        covariance = inverse
        if self.noise is not None:
            noise = self.noise[:, index][:, :, index]
            if prior_precision is not None:
                noise = noise + prior_precision[:, :, None] * np.eye(n)
            covariance = inverse @ noise @ inverse
        return Fit(amplitude, covariance, chi2)


@compiled
def _add_up(
    pixels: np.ndarray,
    columns: np.ndarray,
    weight: np.ndarray,
    matrix: np.ndarray,
    right: np.ndarray,
    power: np.ndarray,
    n_data: np.ndarray,
) -> None:
    """Multiply columns with the roots of weights, and fill the sums of products over the pixels."""
    n_columns, n_pixels = columns.shape[1:]
    root, data = np.empty(n_pixels, np.float32), np.empty(n_pixels, np.float32)
    zero = np.float32(0.0)
    for n in range(len(columns)):
        number, squares = 0, zero
        for i in range(n_pixels):
            used = weight[n, i] > zero
            root[i] = np.sqrt(np.float32(weight[n, i])) if used else zero
            data[i] = np.float32(pixels[n, i]) * root[i] if used else zero
            number += used
        for i in range(n_pixels):
            squares += data[i] * data[i]
        power[n], n_data[n] = squares, number
        for p in range(n_columns):
            total = zero
            for i in range(n_pixels):
                columns[n, p, i] *= root[i]
                total += columns[n, p, i] * data[i]
            right[n, p] = total
            for q in range(p + 1):
                total = zero
                for i in range(n_pixels):
                    total += columns[n, p, i] * columns[n, q, i]
                matrix[n, p, q] = matrix[n, q, p] = total
