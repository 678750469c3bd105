"""Least-squares fit of a spatially varying matching kernel and background to cutouts of sources.

The model at a source is K(x, y) * C + b(x, y), with K = sum_pa c_pa t_a(x, y) B_p and C the image to convolve
(Alard 2000, eqs. 1-8). The basis is convolved with the cutouts once; each source then enters the normal equations
as the Kronecker product of its spatial terms with the matrix of its pixels, so that clipping costs nothing.

The image to convolve is noisy itself, which adds sum_pixels(w v_C) sum_u(B_p B_q) to the normal matrix on average
and would pull the kernel towards zero (by 1 % with sources of signal-to-noise ratio 20 in both images). That
expectation is subtracted.
"""

from __future__ import annotations

__all__ = ["KernelFit", "fit_kernel"]

from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.linalg

from ..psf import PixelBasis, PolynomialField, centre_crop, noise_equivalent_area
from ..stamps import gather_stamps, stamp_origin

_RIDGE = 1e-9
"""Ridge on the normal matrix, scaled to unit diagonal: below the precision of float32 pixels, above rounding."""

_LEAST_RELIABILITY = 0.5
"""Least ratio of noise-free to measured power along a direction of the normal matrix that is corrected for noise.
Directions with less are mostly noise: they are corrected by this ratio, which keeps the matrix positive."""


@dataclass(frozen=True)
class KernelFit:
    """A fitted kernel.

    Parameters
    ----------
    kernel : `PixelBasis`
        Kernel, by convolution.
    background : `numpy.ndarray`, (n_terms,)
        Coefficients of the background on the terms of ``kernel.field``.
    chi2_before, chi2_after : `numpy.ndarray`, (N,)
        Reduced chi-square of each source with the plain difference and with the fitted kernel; NaN for sources
        that were not in the fit from the start.
    clipped : `numpy.ndarray`, (N,), bool
        Sources rejected for their chi-square.
    condition : `float`
        Condition number of the scaled normal matrix.
    n_parameters : `int`
        Number of coefficients fitted.
    """

    kernel: PixelBasis
    background: np.ndarray
    chi2_before: np.ndarray
    chi2_after: np.ndarray
    clipped: np.ndarray
    condition: float
    n_parameters: int


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


def fit_kernel(
    target: np.ndarray,
    convolved: np.ndarray,
    target_variance: np.ndarray,
    convolved_variance: np.ndarray,
    bad: np.ndarray,
    field: PolynomialField,
    orders: SpatialOrders,
    basis: np.ndarray,
    varies: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    used: np.ndarray,
    half_size: int,
    models: ModelSources | None = None,
    *,
    squared_kernel_sum: float,
    model_error: float,
    clip_sigma: float,
    max_iterations: int,
    min_sources: int,
) -> KernelFit:
    """Fit target = K * convolved + background on cutouts around sources.

    Parameters
    ----------
    target, convolved : `numpy.ndarray`, (height, width)
        Image to reproduce and image to convolve, free of NaN.
    target_variance, convolved_variance : `numpy.ndarray`, (height, width)
        Their variances.
    bad : `numpy.ndarray`, (height, width), bool
        Pixels that are left out of the fit.
    field : `PolynomialField`
        Spatial terms, of at least the largest of the orders.
    orders : `SpatialOrders`
        Spatial orders.
    basis : `numpy.ndarray`, (n_kernels, size, size)
        Kernel basis; the first has unit sum, the others zero sum.
    varies : `numpy.ndarray`, (n_kernels,), bool
        Kernels whose coefficients vary over the field; those of the others are constant.
    x, y : `numpy.ndarray`, (N,)
        Positions of the sources [pixel], in the frame of ``field.bounds``.
    used : `numpy.ndarray`, (N,), bool
        Sources to start with.
    half_size : `int`
        Half the side of the fitted square, without its centre [pixel].
    models : `ModelSources`, optional
        What the PSF models say; they are never rejected.
    squared_kernel_sum : `float`
        Expected sum of the squared kernel, by which the variance of the convolved image enters the weights.
    model_error : `float`
        Relative error of the model, added to the noise: the match of a bright star is limited by what a smooth
        kernel cannot follow (the star's own jitter), not by its photon noise.
    clip_sigma : `float`
        Sources whose reduced chi-square exceeds the median by this many robust sigmas are rejected.
    max_iterations : `int`
        Rounds of rejection.
    min_sources : `int`
        Clipping stops before fewer are left.

    Returns
    -------
    fit : `KernelFit`
        Results.
    """
    index = np.flatnonzero(used)
    size = 2 * half_size + 1
    reach = basis.shape[1] // 2
    x_first, y_first = field.bounds.x.start, field.bounds.y.start
    x0, y0 = stamp_origin(x[index] - x_first, y[index] - y_first, size)
    data = gather_stamps(target, x0, y0, size, 0.0).astype(float).reshape(len(index), -1)
    raw = gather_stamps(convolved, x0 - reach, y0 - reach, size + 2 * reach, 0.0)
    noise = (
        gather_stamps(target_variance, x0, y0, size, 1.0)
        + squared_kernel_sum * gather_stamps(convolved_variance, x0, y0, size, 1.0)
    ).reshape(len(index), -1)
    masked = gather_stamps(bad, x0, y0, size, True).reshape(len(index), -1)
    local_sky = np.median(data, axis=1, keepdims=True)
    weight = np.where(masked, 0.0, 1.0 / (noise + (model_error * (data - local_sky)) ** 2))

    design = _convolve_basis(raw, basis, size)
    design = np.concatenate([design, np.ones((len(index), 1, design.shape[2]))], axis=1)
    convolved_noise = gather_stamps(convolved_variance, x0, y0, size, 1.0).reshape(len(index), -1)
    n_sources = len(index)
    if models is not None:
        model_data, model_design, model_weight = _model_pixels(models, basis, size)
        data, design = np.concatenate([data, model_data]), np.concatenate([design, model_design])
        weight = np.concatenate([weight, model_weight])
        convolved_noise = np.concatenate([convolved_noise, np.zeros_like(model_data)])
        x_all, y_all = np.concatenate([x[index], models.x]), np.concatenate([y[index], models.y])
    else:
        x_all, y_all = x[index], y[index]
    weighted = design * weight[:, None, :]
    matrices = weighted @ design.transpose(0, 2, 1)
    vectors = np.einsum("npi,ni->np", weighted, data)
    squares = np.einsum("ni,ni->n", weight, data**2)
    n_pixels = np.maximum((weight > 0).sum(axis=1), 1)

    terms = field.evaluate(x_all, y_all)
    columns = _columns(field, orders, varies)
    system = _NormalEquations(
        matrices, vectors, terms, columns, _noise_matrix(basis), (weight * convolved_noise).sum(axis=1)
    )
    keep = np.ones(len(terms), dtype=bool)
    real = np.arange(len(terms)) < n_sources
    for _ in range(max_iterations + 1):
        coefficients, condition = system.solve(keep)
        chi2 = system.chi2(coefficients, squares) / n_pixels
        fitted = chi2[keep & real]
        centre = np.median(fitted)
        spread = 1.4826 * np.median(np.abs(fitted - centre))
        limit = centre + clip_sigma * max(spread, np.sqrt(2.0 / np.median(n_pixels)))
        outlier = keep & real & (chi2 > limit)
        if not outlier.any() or len(fitted) - outlier.sum() < min_sources:
            break
        keep &= ~outlier

    before = squares - vectors[:, 0] ** 2 / np.maximum(matrices[:, 0, 0], 1e-300)
    kernel = PixelBasis(np.tensordot(coefficients[:-1].T, basis, axes=1), field)
    return KernelFit(
        kernel=kernel,
        background=coefficients[-1],
        chi2_before=_scatter((before / n_pixels)[:n_sources], index, len(x)),
        chi2_after=_scatter(chi2[:n_sources], index, len(x)),
        clipped=_scatter((~keep[:n_sources]).astype(float), index, len(x)) == 1.0,
        condition=condition,
        n_parameters=int(columns.sum()),
    )


def _model_pixels(
    models: ModelSources, basis: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return data, design and weights of model sources, as those of the cutouts."""
    reach = basis.shape[1] // 2
    data = centre_crop(models.target, size).reshape(len(models.x), -1)
    design = _convolve_basis(centre_crop(models.convolved, size + 2 * reach), basis, size)
    # The models have no sky, so they say nothing about the background.
    design = np.concatenate([design, np.zeros((len(models.x), 1, design.shape[2]))], axis=1)
    # A PSF fit of unit flux has (S/N)^2 = weight sum(P^2) = weight / noise_equivalent_area.
    weight = models.snr**2 * noise_equivalent_area(models.target)
    return data, design, np.broadcast_to(weight[:, None], data.shape).copy()


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


def _noise_matrix(basis: np.ndarray) -> np.ndarray:
    """Return sum_u B_p(u) B_q(u) for the kernels, with a row and column of zeros for the background."""
    flat = basis.reshape(len(basis), -1)
    return np.pad(flat @ flat.T, ((0, 1), (0, 1)))


def _columns(field: PolynomialField, orders: SpatialOrders, varies: np.ndarray) -> np.ndarray:
    """Return which (pixel term, spatial term) pairs are fitted, shape (n_kernels + 1, n_terms)."""
    degree = np.array([p + q for p, q in field.exponents])
    allowed = np.append(np.where(varies, orders.shape, 0), 0)
    allowed[0] = orders.total
    allowed[-1] = orders.background
    return degree[None, :] <= allowed[:, None]


class _NormalEquations:
    """Normal equations of a set of sources, from which any subset of them is solved.

    Parameters
    ----------
    matrices : `numpy.ndarray`, (N, P, P)
        Normal matrix of the pixels of each source.
    vectors : `numpy.ndarray`, (N, P)
        Right-hand side of each source.
    terms : `numpy.ndarray`, (N, n_terms)
        Spatial terms at each source.
    columns : `numpy.ndarray`, (P, n_terms), bool
        Which pairs of pixel and spatial term are fitted.
    noise_matrix : `numpy.ndarray`, (P, P)
        What white noise of unit variance in the convolved image adds to the matrix of one pixel.
    noise : `numpy.ndarray`, (N,)
        Weighted sum of the convolved image's variance over the pixels of each source.
    """

    def __init__(
        self,
        matrices: np.ndarray,
        vectors: np.ndarray,
        terms: np.ndarray,
        columns: np.ndarray,
        noise_matrix: np.ndarray,
        noise: np.ndarray,
    ) -> None:
        self._matrices, self._vectors, self._terms, self._columns = matrices, vectors, terms, columns
        self._noise_matrix, self._noise = noise_matrix, noise

    def assemble(self, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the normal matrix, the part of it that noise makes, and the right-hand side of some sources."""
        terms, chosen = self._terms[keep], self._columns.ravel()
        outer = (terms[:, :, None] * terms[:, None, :]).reshape(len(terms), -1)
        n_pixel, n_spatial = self._columns.shape
        select = np.ix_(chosen, chosen)
        normal = outer.T @ self._matrices[keep].reshape(len(terms), -1)
        normal = normal.reshape(n_spatial, n_spatial, n_pixel, n_pixel).transpose(2, 0, 3, 1)
        spatial_noise = (self._noise[keep] @ outer).reshape(n_spatial, n_spatial)
        noise = self._noise_matrix[:, None, :, None] * spatial_noise[None, :, None, :]
        right = (self._vectors[keep].T @ terms).ravel()
        shape = (len(chosen), len(chosen))
        return normal.reshape(shape)[select], noise.reshape(shape)[select], right[chosen]

    def solve(self, keep: np.ndarray) -> tuple[np.ndarray, float]:
        """Fit some of the sources; returns coefficients (P, n_terms) and the condition of the scaled matrix."""
        normal, noise, right = self.assemble(keep)
        scale = 1.0 / np.sqrt(np.maximum(np.diagonal(normal), 1e-300))
        scaled = normal * scale[:, None] * scale[None, :]
        scaled[np.diag_indices_from(scaled)] += _RIDGE
        clean = scaled - noise * scale[:, None] * scale[None, :]
        reliability, directions = scipy.linalg.eigh(clean, scaled)
        projected = directions.T @ (scale * right) / np.maximum(reliability, _LEAST_RELIABILITY)
        chosen = self._columns.ravel()
        coefficients = np.zeros(chosen.size)
        coefficients[chosen] = scale * (directions @ projected)
        eigenvalues = np.linalg.eigvalsh(scaled)
        condition = float(eigenvalues[-1] / max(eigenvalues[0], 1e-300))
        return coefficients.reshape(self._columns.shape), condition

    def chi2(self, coefficients: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """Return the chi-square of every source with given coefficients."""
        local = self._terms @ coefficients.T
        chi2 = squares - 2 * np.einsum("np,np->n", local, self._vectors)
        return chi2 + np.einsum("np,np->n", (self._matrices @ local[:, :, None])[:, :, 0], local)


def _scatter(values: np.ndarray, index: np.ndarray, length: int) -> np.ndarray:
    result = np.full(length, np.nan)
    result[index] = values
    return result
