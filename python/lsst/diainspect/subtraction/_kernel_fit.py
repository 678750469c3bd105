"""Least-squares fit of a spatially varying matching kernel and background to cutouts of sources.

The model at a source is K(x, y) * C + b(x, y), with K = sum_pa c_pa t_a(x, y) B_p and C the image to convolve
(Alard 2000, eqs. 1-8). The basis is convolved with the cutouts once; each source then enters the normal equations
as the Kronecker product of its spatial terms with the matrix of its pixels, so that clipping costs nothing.
"""

from __future__ import annotations

__all__ = ["KernelFit", "fit_kernel"]

from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.linalg

from ..psf import PixelBasis, PolynomialField
from ..stamps import gather_stamps, stamp_origin

_RIDGE = 1e-9
"""Ridge on the normal matrix, scaled to unit diagonal: below the precision of float32 pixels, above rounding."""


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
    x: np.ndarray,
    y: np.ndarray,
    used: np.ndarray,
    half_size: int,
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
    x, y : `numpy.ndarray`, (N,)
        Positions of the sources [pixel], in the frame of ``field.bounds``.
    used : `numpy.ndarray`, (N,), bool
        Sources to start with.
    half_size : `int`
        Half the side of the fitted square, without its centre [pixel].
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
    weighted = design * weight[:, None, :]
    matrices = weighted @ design.transpose(0, 2, 1)
    vectors = np.einsum("npi,ni->np", weighted, data)
    squares = np.einsum("ni,ni->n", weight, data**2)
    n_pixels = np.maximum((weight > 0).sum(axis=1), 1)

    terms = field.evaluate(x[index], y[index])
    columns = _columns(field, orders, len(basis))
    keep = np.ones(len(index), dtype=bool)
    for _ in range(max_iterations + 1):
        coefficients, condition = _solve(matrices[keep], vectors[keep], terms[keep], columns)
        local = terms @ coefficients.T
        chi2 = squares - 2 * np.einsum("np,np->n", local, vectors)
        chi2 += np.einsum("np,npq,nq->n", local, matrices, local)
        chi2 /= n_pixels
        centre = np.median(chi2[keep])
        spread = 1.4826 * np.median(np.abs(chi2[keep] - centre))
        outlier = keep & (chi2 > centre + clip_sigma * max(spread, np.sqrt(2.0 / np.median(n_pixels))))
        if not outlier.any() or keep.sum() - outlier.sum() < min_sources:
            break
        keep &= ~outlier

    before = squares - vectors[:, 0] ** 2 / np.maximum(matrices[:, 0, 0], 1e-300)
    kernel = PixelBasis(np.tensordot(coefficients[:-1].T, basis, axes=1), field)
    return KernelFit(
        kernel=kernel,
        background=coefficients[-1],
        chi2_before=_scatter(before / n_pixels, index, len(x)),
        chi2_after=_scatter(chi2, index, len(x)),
        clipped=_scatter((~keep).astype(float), index, len(x)) == 1.0,
        condition=condition,
        n_parameters=int(columns.sum()),
    )


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


def _columns(field: PolynomialField, orders: SpatialOrders, n_kernels: int) -> np.ndarray:
    """Return which (pixel term, spatial term) pairs are fitted, shape (n_kernels + 1, n_terms)."""
    degree = np.array([p + q for p, q in field.exponents])
    allowed = np.full(n_kernels + 1, orders.shape)
    allowed[0] = orders.total
    allowed[-1] = orders.background
    return degree[None, :] <= allowed[:, None]


def _solve(
    matrices: np.ndarray, vectors: np.ndarray, terms: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, float]:
    """Solve the normal equations; returns coefficients (n_pixel_terms, n_terms) and the condition number."""
    outer = terms[:, :, None] * terms[:, None, :]
    n_pixel, n_spatial = columns.shape
    normal = np.einsum("nab,npq->paqb", outer, matrices, optimize=True)
    normal = normal.reshape(n_pixel * n_spatial, n_pixel * n_spatial)
    right = np.einsum("na,np->pa", terms, vectors).ravel()
    chosen = columns.ravel()
    normal, right = normal[np.ix_(chosen, chosen)], right[chosen]
    scale = 1.0 / np.sqrt(np.maximum(np.diagonal(normal), 1e-300))
    scaled = normal * scale[:, None] * scale[None, :]
    scaled[np.diag_indices_from(scaled)] += _RIDGE
    eigenvalues = np.linalg.eigvalsh(scaled)
    solution = scale * scipy.linalg.solve(scaled, scale * right, assume_a="pos")
    coefficients = np.zeros(columns.size)
    coefficients[chosen] = solution
    return coefficients.reshape(columns.shape), float(eigenvalues[-1] / max(eigenvalues[0], 1e-300))


def _scatter(values: np.ndarray, index: np.ndarray, length: int) -> np.ndarray:
    result = np.full(length, np.nan)
    result[index] = values
    return result
