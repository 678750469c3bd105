"""Least squares for many stamps, of many models that share columns: the normal matrix is made once."""

from __future__ import annotations

__all__ = ["Fit", "NormalEquations"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..compiled import compiled
from ..linear_fit import Fit, invert_normal

_MAX_CONDITION = 1e5
"""Normal matrices of float32 columns with an inverse larger than this, scaled to unit diagonal, are not solved: an
amplitude's error would be three hundred times that of a fit without the other columns."""

_LEAST_PIVOT = 1e-9

_LEAST_FREEDOM = 0.1
"""Least part of a pixel's noise that a fit is taken to leave in its residual."""


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
        n, n_columns = len(self.right), len(columns)
        if prior_precision is None:
            prior_precision = np.zeros((0, n_columns))
        if prior_mean is None:
            prior_mean = np.zeros_like(prior_precision)
        amplitude = np.full((n, n_columns), np.nan)
        covariance, chi2 = np.full((n, n_columns, n_columns), np.nan), np.full(n, np.nan)
        _solve_all(
            self.matrix,
            self.right,
            self.power,
            self.n_data,
            np.zeros((0, 1, 1)) if self.noise is None else self.noise,
            np.array(columns),
            prior_mean,
            prior_precision,
            amplitude,
            covariance,
            chi2,
        )
        return Fit(amplitude, covariance, chi2)


@compiled
def _solve_all(
    matrix: np.ndarray,
    right: np.ndarray,
    power: np.ndarray,
    n_data: np.ndarray,
    noise: np.ndarray,
    columns: np.ndarray,
    prior_mean: np.ndarray,
    prior_precision: np.ndarray,
    amplitude: np.ndarray,
    covariance: np.ndarray,
    chi2: np.ndarray,
) -> None:
    """Solve each stamp's equations for some columns; those that cannot be solved stay as they are.

    ``noise`` and the priors have no rows where there are none.
    """
    n_columns = len(columns)
    shape = (n_columns, n_columns)
    own, scaled, inverse, half = np.empty(shape), np.empty(shape), np.empty(shape), np.empty(shape)
    scale, target = np.empty(n_columns), np.empty(n_columns)
    with_prior, with_noise = len(prior_precision) > 0, len(noise) > 0
    for n in range(len(right)):
        possible = n_data[n] > n_columns
        for p in range(n_columns):
            target[p] = right[n, columns[p]]
            for q in range(n_columns):
                own[p, q] = scaled[p, q] = matrix[n, columns[p], columns[q]]
            if with_prior:
                scaled[p, p] += prior_precision[n, p]
                target[p] += prior_precision[n, p] * prior_mean[n, p]
            possible &= np.isfinite(target[p])
        # A singular matrix becomes one with a huge inverse.
        if not possible or not invert_normal(scaled, _LEAST_PIVOT, inverse, scale):
            continue
        largest = 0.0
        for p in range(n_columns):
            for q in range(n_columns):
                largest = max(largest, abs(inverse[p, q]))
        if not largest < _MAX_CONDITION:
            continue
        for p in range(n_columns):
            amplitude[n, p] = 0.0
            for q in range(n_columns):
                inverse[p, q] *= scale[p] * scale[q]
                amplitude[n, p] += inverse[p, q] * target[q]
        chi2[n] = power[n]
        for p in range(n_columns):
            chi2[n] -= 2.0 * amplitude[n, p] * right[n, columns[p]]
            for q in range(n_columns):
                chi2[n] += amplitude[n, p] * own[p, q] * amplitude[n, q]
        covariance[n] = inverse
        if not with_noise:
            continue
        for p in range(n_columns):
            for q in range(n_columns):
                own[p, q] = noise[n, columns[p], columns[q]]
            if with_prior:
                own[p, p] += prior_precision[n, p]
        for p in range(n_columns):
            for q in range(n_columns):
                half[p, q] = 0.0
                for r in range(n_columns):
                    half[p, q] += inverse[p, r] * own[r, q]
        for p in range(n_columns):
            for q in range(n_columns):
                covariance[n, p, q] = 0.0
                for r in range(n_columns):
                    covariance[n, p, q] += half[p, r] * inverse[r, q]


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
