"""Least-squares fit of a spatially varying matching kernel and background to cutouts of sources.

The model at a source is K(x, y) * C + b(x, y), with K = sum_pa c_pa t_a(x, y) B_p and C the image to convolve
(Alard 2000, eqs. 1-8). The basis is convolved with the cutouts once; each source then enters the normal equations
as the Kronecker product of its spatial terms with the matrix of its pixels, so that clipping, other spatial orders
and sources held out of the fit cost next to nothing.

The image to convolve is noisy itself, which adds sum_pixels(w v_C) sum_u(B_p B_q) to the normal matrix on average
and would pull the kernel towards zero (by 1 % with sources of signal-to-noise ratio 20 in both images). That
expectation is subtracted.

A basis with a penalty R on roughness (Becker et al. 2012, section 2) is fitted by minimising
chi^2 + lambda (tr N / tr R) c^T R c, with N the normal matrix: lambda depends neither on the number of sources nor
on their fluxes.
"""

from __future__ import annotations

__all__ = ["KernelEquations", "KernelFit", "KernelModel", "ModelSources", "SpatialOrders"]

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.fft
import scipy.linalg
from lsst.images import Box

from ..psf import PixelBasis, PolynomialField, centre_crop, noise_equivalent_area
from ..stamps import gather_stamps, stamp_origin
from ._kernel_basis import KernelBasis

_RIDGE = 1e-9
"""Ridge on the normal matrix, scaled to unit diagonal: below the precision of float32 pixels, above rounding."""

_LEAST_RELIABILITY = 0.5
"""Least ratio of noise-free to measured power along a direction of the normal matrix that is corrected for noise.
Directions with less are mostly noise: they are corrected by this ratio, which keeps the matrix positive."""

_CHUNK = 32
"""Sources whose cutouts are convolved with the basis at a time, which bounds the memory."""

_FOLD_CELLS = 4
"""Cells a side of the grid in whose order sources are dealt to folds, so that each fold is spread over the field."""

_MEAN_GRID = 16
"""Positions a side over which the penalty is averaged."""


@dataclass(frozen=True)
class ModelSources:
    """Noiseless sources made from the two PSF models, which tell the fit what it should find between the stars.

    Parameters
    ----------
    target, convolved : `numpy.ndarray`, (M, size, size)
        Unit-flux PSFs of the image to reproduce (registered and scaled) and of the image to convolve.
    x, y : `numpy.ndarray`, (M,)
        Positions [pixel].
    snr : `float`
        Signal-to-noise ratio of each: the inverse of the relative error of the PSF models.
    """

    target: np.ndarray
    convolved: np.ndarray
    x: np.ndarray
    y: np.ndarray
    snr: float


@dataclass(frozen=True)
class SpatialOrders:
    """Spatial polynomial orders of the kernel's shape, its sum and the background."""

    shape: int
    total: int
    background: int

    @property
    def largest(self) -> int:
        """Order of the polynomial that holds all three."""
        return max(self.shape, self.total, self.background)


@dataclass(frozen=True)
class KernelModel:
    """What is left to choose once the basis is given.

    Parameters
    ----------
    orders : `SpatialOrders`
        Spatial orders.
    smoothing : `float`
        Strength lambda of the basis' penalty; without effect where it has none.
    """

    orders: SpatialOrders
    smoothing: float = 0.0


@dataclass(frozen=True)
class KernelFit:
    """A fitted kernel.

    Parameters
    ----------
    kernel : `PixelBasis`
        Kernel, by convolution.
    background : `numpy.ndarray`, (n_terms,)
        Coefficients of the background on the terms of ``kernel.field``.
    sum_covariance : `numpy.ndarray`, (n_terms, n_terms)
        Formal covariance of the coefficients of the kernel's sum on those terms.
    chi2_before, chi2_after : `numpy.ndarray`, (N,)
        Reduced chi-square of each source with the plain difference and with the fitted kernel; NaN for sources
        that were not in the fit from the start.
    chi2_held_out : `numpy.ndarray`, (N,)
        The same with the kernel fitted to the other sources only.
    clipped : `numpy.ndarray`, (N,), bool
        Sources rejected for their chi-square.
    condition : `float`
        Condition number of the scaled normal matrix.
    n_parameters : `int`
        Number of coefficients fitted.
    n_effective : `float`
        How many of them the data determine, the others being held by the penalty: tr[(N + P)^-1 N].
    """

    kernel: PixelBasis
    background: np.ndarray
    sum_covariance: np.ndarray
    chi2_before: np.ndarray
    chi2_after: np.ndarray
    chi2_held_out: np.ndarray
    clipped: np.ndarray
    condition: float
    n_parameters: int
    n_effective: float


class KernelEquations:
    """Normal equations of every source for one basis: any model is fitted to any of them.

    Parameters
    ----------
    target, convolved : `numpy.ndarray`, (height, width)
        Image to reproduce and image to convolve, free of NaN.
    target_variance, convolved_variance : `numpy.ndarray`, (height, width)
        Their variances.
    bad : `numpy.ndarray`, (height, width), bool
        Pixels that are left out of the fit.
    bounds : `lsst.images.Box`
        The images' box.
    basis : `KernelBasis`
        Kernel basis.
    x, y : `numpy.ndarray`, (N,)
        Positions of the sources [pixel], in the frame of ``bounds``.
    used : `numpy.ndarray`, (N,), bool
        Sources to take.
    half_size : `int`
        Half the side of the fitted square, without its centre [pixel].
    models : `ModelSources`, optional
        What the PSF models say; they are neither rejected nor held out.
    squared_kernel_sum : `float`
        Expected sum of the squared kernel, by which the variance of the convolved image enters the weights.
    model_error : `float`
        Relative error of the model, added to the noise: the match of a bright star is limited by what a smooth
        kernel cannot follow (the star's own jitter), not by its photon noise.
    """

    def __init__(
        self,
        target: np.ndarray,
        convolved: np.ndarray,
        target_variance: np.ndarray,
        convolved_variance: np.ndarray,
        bad: np.ndarray,
        bounds: Box,
        basis: KernelBasis,
        x: np.ndarray,
        y: np.ndarray,
        used: np.ndarray,
        half_size: int,
        models: ModelSources | None = None,
        *,
        squared_kernel_sum: float,
        model_error: float,
    ) -> None:
        self.basis, self.bounds = basis, bounds
        self._index, self._n_candidates = np.flatnonzero(used), len(x)
        size, reach = 2 * half_size + 1, basis.images.shape[1] // 2
        x_used, y_used = x[self._index], y[self._index]
        x0, y0 = stamp_origin(x_used - bounds.x.start, y_used - bounds.y.start, size)

        def cut(image: np.ndarray, fill: float | bool, wider: int = 0) -> np.ndarray:
            return gather_stamps(image, x0 - wider, y0 - wider, size + 2 * wider, fill)

        def flat(stamps: np.ndarray) -> np.ndarray:
            return stamps.reshape(len(stamps), -1)

        data = flat(cut(target, 0.0)).astype(float)
        convolved_noise = flat(cut(convolved_variance, 1.0))
        noise = flat(cut(target_variance, 1.0)) + squared_kernel_sum * convolved_noise
        local_sky = np.median(data, axis=1, keepdims=True)
        weight = np.where(flat(cut(bad, True)), 0.0, 1.0 / (noise + (model_error * (data - local_sky)) ** 2))
        raw, with_sky = cut(convolved, 0.0, reach), np.ones(len(data))
        if models is not None:
            model_data = flat(centre_crop(models.target, size))
            # A PSF fit of unit flux has (S/N)^2 = weight sum(P^2) = weight / noise_equivalent_area.
            model_weight = models.snr**2 * noise_equivalent_area(models.target)
            data = np.concatenate([data, model_data])
            weight = np.concatenate([weight, np.broadcast_to(model_weight[:, None], model_data.shape)])
            convolved_noise = np.concatenate([convolved_noise, np.zeros_like(model_data)])
            raw = np.concatenate([raw, centre_crop(models.convolved, size + 2 * reach)])
            # The models have no sky, so they say nothing about the background.
            with_sky = np.concatenate([with_sky, np.zeros(len(model_data))])
            x_used, y_used = np.concatenate([x_used, models.x]), np.concatenate([y_used, models.y])
        self._x, self._y = x_used, y_used
        self._n_pixels = np.maximum((weight > 0).sum(axis=1), 1)
        self._squares = np.einsum("ni,ni->n", weight, data**2)
        # What white noise of unit variance in the convolved image adds to the matrix of one pixel of unit weight.
        kernels = basis.images.reshape(len(basis.images), -1)
        self._noise_matrix = np.pad(kernels @ kernels.T, ((0, 1), (0, 1)))
        self._noise = (weight * convolved_noise).sum(axis=1)
        n_pixel_terms = len(basis.images) + 1
        self._matrices = np.empty((len(data), n_pixel_terms, n_pixel_terms))
        self._vectors = np.empty((len(data), n_pixel_terms))
        for start in range(0, len(data), _CHUNK):
            part = slice(start, start + _CHUNK)
            design = _convolve_basis(raw[part], basis.images, size)
            sky = np.broadcast_to(with_sky[part, None, None], (len(design), 1, size**2))
            design = np.concatenate([design, sky], axis=1)
            weighted = design * weight[part, None, :]
            self._matrices[part] = weighted @ design.transpose(0, 2, 1)
            self._vectors[part] = np.einsum("npi,ni->np", weighted, data[part])

    @property
    def _all(self) -> np.ndarray:
        return np.ones(len(self._x), dtype=bool)

    @cached_property
    def _real(self) -> np.ndarray:
        """Which of the equations are those of sources, and not of PSF models."""
        return np.arange(len(self._x)) < len(self._index)

    def n_parameters(self, model: KernelModel) -> int:
        """Return the number of coefficients that a model has."""
        return int(self._columns(PolynomialField(self.bounds, model.orders.largest), model.orders).sum())

    def fit(
        self,
        model: KernelModel,
        *,
        clip_sigma: float,
        max_iterations: int,
        min_sources: int,
        n_folds: int = 0,
    ) -> KernelFit:
        """Fit a model, rejecting sources that do not follow it.

        Parameters
        ----------
        model : `KernelModel`
            The model.
        clip_sigma : `float`
            Sources whose reduced chi-square exceeds the median by this many robust sigmas are rejected.
        max_iterations : `int`
            Rounds of rejection.
        min_sources : `int`
            Clipping stops before fewer are left.
        n_folds : `int`, optional
            Parts of the sources that are held out in turn for ``chi2_held_out``; 0 for none.
        """
        keep = self._all
        for _ in range(max_iterations + 1):
            system = self._system(model.orders, keep)
            coefficients = system.solve(model.smoothing)
            chi2 = self._chi2(coefficients, model.orders)
            outlier = self._outliers(chi2, keep, clip_sigma)
            if not outlier.any() or (keep & self._real).sum() - outlier.sum() < min_sources:
                break
            keep &= ~outlier
        held_out = np.full(len(self._index), np.nan)
        if n_folds > 0:
            # A rejected source is held out of the fit as it is.
            held_out = np.where(keep[self._real], self.held_out(model, keep, n_folds), chi2[self._real])
        before = self._squares - self._vectors[:, 0] ** 2 / np.maximum(self._matrices[:, 0, 0], 1e-300)
        field = PolynomialField(self.bounds, model.orders.largest)
        return KernelFit(
            kernel=PixelBasis(np.tensordot(coefficients[:-1].T, self.basis.images, axes=1), field),
            background=coefficients[-1],
            sum_covariance=system.covariance_of_sum(model.smoothing),
            chi2_before=self._scatter((before / self._n_pixels)[self._real]),
            chi2_after=self._scatter(chi2[self._real]),
            chi2_held_out=self._scatter(held_out),
            clipped=self._scatter((~keep[self._real]).astype(float)) == 1.0,
            condition=system.condition(model.smoothing),
            n_parameters=self.n_parameters(model),
            n_effective=system.n_effective(model.smoothing),
        )

    def kept(self, fit: KernelFit) -> np.ndarray:
        """Return which equations a fit rests on, those of PSF models included."""
        keep = self._all
        keep[self._real] = ~fit.clipped[self._index]
        return keep

    def held_out(self, model: KernelModel, keep: np.ndarray, n_folds: int) -> np.ndarray:
        """Return the reduced chi-square of each source with the kernel of sources of other folds.

        Parameters
        ----------
        model : `KernelModel`
            The model.
        keep : `numpy.ndarray`, (n_equations,), bool
            Equations to use, as `kept` gives them.
        n_folds : `int`
            Number of parts into which the sources are dealt.

        Returns
        -------
        chi2 : `numpy.ndarray`, (n_used,)
            Reduced chi-square; NaN for sources that are not kept.
        """
        return self.held_out_of([model], keep, n_folds)[0]

    def held_out_of(self, models: list[KernelModel], keep: np.ndarray, n_folds: int) -> np.ndarray:
        """Return what `held_out` does for models that differ in their smoothing only, (n_models, n_used)."""
        orders = models[0].orders
        if any(model.orders != orders for model in models):
            raise ValueError("Models of one call must have the same spatial orders.")
        chi2 = np.full((len(models), len(self._x)), np.nan)
        for fold in self._folds(keep, n_folds):
            system = self._system(orders, keep & ~fold)
            for row, model in enumerate(models):
                chi2[row, fold] = self._chi2(system.solve(model.smoothing), orders, fold)
        return chi2[:, self._real]

    def effective_parameters(self, models: list[KernelModel], keep: np.ndarray) -> np.ndarray:
        """Return how many coefficients the data determine, for models that differ in smoothing only."""
        system = self._system(models[0].orders, keep)
        return np.array([system.n_effective(model.smoothing) for model in models])

    def _folds(self, keep: np.ndarray, n_folds: int) -> Iterator[np.ndarray]:
        """Deal the kept sources to folds, cell by cell of the field."""
        chosen = np.flatnonzero(keep & self._real)
        u, v = PolynomialField(self.bounds, 0).normalise(self._x[chosen], self._y[chosen])
        cells = [np.clip((0.5 * (c + 1) * _FOLD_CELLS).astype(int), 0, _FOLD_CELLS - 1) for c in (v, u)]
        order = chosen[np.lexsort((self._x[chosen], cells[1], cells[0]))]
        for first in range(min(n_folds, len(chosen))):
            fold = np.zeros(len(keep), dtype=bool)
            fold[order[first::n_folds]] = True
            yield fold

    def _outliers(self, chi2: np.ndarray, keep: np.ndarray, clip_sigma: float) -> np.ndarray:
        fitted = chi2[keep & self._real]
        centre = np.median(fitted)
        spread = 1.4826 * np.median(np.abs(fitted - centre))
        limit = centre + clip_sigma * max(spread, np.sqrt(2.0 / np.median(self._n_pixels)))
        return keep & self._real & (chi2 > limit)

    def _columns(self, field: PolynomialField, orders: SpatialOrders) -> np.ndarray:
        """Return which (pixel term, spatial term) pairs are fitted, shape (n_kernels + 1, n_terms)."""
        degree = np.array([p + q for p, q in field.exponents])
        allowed = np.append(np.where(self.basis.varies, orders.shape, 0), orders.background)
        allowed[0] = orders.total
        return degree[None, :] <= allowed[:, None]

    def _system(self, orders: SpatialOrders, keep: np.ndarray) -> _NormalEquations:
        """Assemble the normal equations of some of the sources."""
        field = PolynomialField(self.bounds, orders.largest)
        columns = self._columns(field, orders)
        terms, chosen = field.evaluate(self._x[keep], self._y[keep]), columns.ravel()
        outer = (terms[:, :, None] * terms[:, None, :]).reshape(len(terms), -1)
        n_pixel, n_spatial = columns.shape
        select, shape = np.ix_(chosen, chosen), (len(chosen), len(chosen))
        normal = outer.T @ self._matrices[keep].reshape(len(terms), -1)
        normal = normal.reshape(n_spatial, n_spatial, n_pixel, n_pixel).transpose(2, 0, 3, 1)
        spatial_noise = (self._noise[keep] @ outer).reshape(n_spatial, n_spatial)
        noise = self._noise_matrix[:, None, :, None] * spatial_noise[None, :, None, :]
        right = (self._vectors[keep].T @ terms).ravel()
        penalty = None
        if self.basis.penalty is not None:
            u, v = field.sample_grid(_MEAN_GRID)
            grid = field.evaluate(u, v)
            spatial = grid.T @ grid / len(grid)
            padded = np.pad(self.basis.penalty, ((0, 1), (0, 1)))
            penalty = (padded[:, None, :, None] * spatial[None, :, None, :]).reshape(shape)[select]
        return _NormalEquations(
            columns, normal.reshape(shape)[select], noise.reshape(shape)[select], right[chosen], penalty
        )

    def _chi2(
        self, coefficients: np.ndarray, orders: SpatialOrders, which: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the reduced chi-square of sources with given coefficients."""
        which = self._all if which is None else which
        field = PolynomialField(self.bounds, orders.largest)
        local = field.evaluate(self._x[which], self._y[which]) @ coefficients.T
        chi2 = self._squares[which] - 2 * np.einsum("np,np->n", local, self._vectors[which])
        chi2 += np.einsum("np,np->n", (self._matrices[which] @ local[:, :, None])[:, :, 0], local)
        return chi2 / self._n_pixels[which]

    def _scatter(self, values: np.ndarray) -> np.ndarray:
        """Return values of the sources taken as values of all candidates, NaN for the others."""
        result = np.full(self._n_candidates, np.nan)
        result[self._index] = values
        return result


def _convolve_basis(raw: np.ndarray, basis: np.ndarray, size: int) -> np.ndarray:
    """Convolve every cutout with every kernel; returns (N, n_kernels, size * size) of fully covered pixels."""
    shape = (scipy.fft.next_fast_len(raw.shape[1], real=True),) * 2
    kernels = scipy.fft.rfft2(basis, s=shape)
    reach = basis.shape[1] // 2
    result = np.empty((len(raw), len(basis), size * size))
    inner = slice(2 * reach, 2 * reach + size)
    for n, cutout in enumerate(scipy.fft.rfft2(raw.astype(float), s=shape)):
        convolved = scipy.fft.irfft2(kernels * cutout, s=shape)
        result[n] = convolved[:, inner, inner].reshape(len(basis), -1)
    return result


class _NormalEquations:
    """One linear system, solved with the expectation of the noise taken out and with any strength of the penalty.

    Parameters
    ----------
    columns : `numpy.ndarray`, (P, n_terms), bool
        Which pairs of pixel and spatial term the unknowns are.
    normal, noise : `numpy.ndarray`, (n, n)
        Normal matrix, and the part of it that noise makes.
    right : `numpy.ndarray`, (n,)
        Right-hand side.
    penalty : `numpy.ndarray` or `None`, (n, n)
        Form that is kept small.
    """

    def __init__(
        self,
        columns: np.ndarray,
        normal: np.ndarray,
        noise: np.ndarray,
        right: np.ndarray,
        penalty: np.ndarray | None,
    ) -> None:
        self._columns = columns
        self._scale = 1.0 / np.sqrt(np.maximum(np.diagonal(normal), 1e-300))
        both = self._scale[:, None] * self._scale[None, :]
        self._measured = normal * both
        self._measured[np.diag_indices_from(normal)] += _RIDGE
        self._right = self._scale * right
        reliability, directions = scipy.linalg.eigh(self._measured - noise * both, self._measured)
        self._reliability = np.maximum(reliability, _LEAST_RELIABILITY)
        self._directions = directions
        self._penalty = None
        if penalty is not None:
            self._penalty = penalty * both * (np.trace(normal) / np.trace(penalty))

    @cached_property
    def _matrix(self) -> np.ndarray:
        """The scaled normal matrix without noise; none of its directions is corrected by more than a factor."""
        projected = self._measured @ self._directions
        return (projected * self._reliability) @ projected.T

    def _is_free(self, smoothing: float) -> bool:
        return self._penalty is None or smoothing == 0.0

    def _penalised(self, smoothing: float) -> np.ndarray:
        return self._matrix if self._penalty is None else self._matrix + smoothing * self._penalty

    def _inverse_times(self, columns: np.ndarray, smoothing: float) -> np.ndarray:
        if self._is_free(smoothing):
            projected = self._directions.T @ columns
            return self._directions @ (projected.T / self._reliability).T
        return scipy.linalg.cho_solve(scipy.linalg.cho_factor(self._penalised(smoothing)), columns)

    def solve(self, smoothing: float) -> np.ndarray:
        """Return the coefficients, (P, n_terms)."""
        chosen = self._columns.ravel()
        coefficients = np.zeros(chosen.size)
        coefficients[chosen] = self._scale * self._inverse_times(self._right, smoothing)
        return coefficients.reshape(self._columns.shape)

    def covariance_of_sum(self, smoothing: float) -> np.ndarray:
        """Return the formal covariance of the coefficients of the first kernel, (n_terms, n_terms)."""
        n_spatial = self._columns.shape[1]
        fitted = np.flatnonzero(self._columns[0])
        unit = np.zeros((len(self._scale), len(fitted)))
        unit[np.arange(len(fitted)), np.arange(len(fitted))] = self._scale[: len(fitted)]
        covariance = np.zeros((n_spatial, n_spatial))
        covariance[np.ix_(fitted, fitted)] = unit.T @ self._inverse_times(unit, smoothing)
        return covariance

    def condition(self, smoothing: float) -> float:
        """Return the condition number of the scaled matrix, penalty included."""
        matrix = self._measured if self._is_free(smoothing) else self._penalised(smoothing)
        eigenvalues = np.linalg.eigvalsh(matrix)
        return float(eigenvalues[-1] / max(eigenvalues[0], 1e-300))

    def n_effective(self, smoothing: float) -> float:
        """Return the trace of (N + P)^-1 N."""
        if self._is_free(smoothing):
            return float(len(self._scale))
        return float(np.trace(self._inverse_times(self._matrix, smoothing)))
