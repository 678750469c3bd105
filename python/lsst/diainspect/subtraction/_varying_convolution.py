"""Convolution of a full image with a spatially varying kernel: sum_m t_m(x, y) (K_m * image), exact."""

from __future__ import annotations

__all__ = ["convolve_varying", "polynomial_strips"]

from collections.abc import Iterator

import numpy as np
import scipy.fft

from ..psf import PixelBasis, PolynomialField

_STRIP = 16
"""Rows that polynomials are evaluated on at a time."""


def convolve_varying(image: np.ndarray, kernel: PixelBasis) -> np.ndarray:
    """Convolve an image with a kernel that varies as a polynomial of the output position.

    One forward transform and one inverse for each spatial term.

    Parameters
    ----------
    image : `numpy.ndarray`, (height, width)
        Image; it is continued by reflection at the edges.
    kernel : `PixelBasis`
        Kernel over bounds of the image's shape.

    Returns
    -------
    convolved : `numpy.ndarray`, (height, width), float32
        Result.
    """
    reach = kernel.size // 2
    padded = np.pad(image.astype(np.float32, copy=False), reach, mode="symmetric")
    shape = tuple(scipy.fft.next_fast_len(length, real=True) for length in padded.shape)
    transform = scipy.fft.rfft2(padded, s=shape)
    convolved = np.zeros(image.shape, dtype=np.float32)
    for basis, (row, column) in zip(kernel.basis, kernel.field.axis_terms(), strict=True):
        if not basis.any():
            continue
        term = scipy.fft.irfft2(transform * scipy.fft.rfft2(basis.astype(np.float32), s=shape), s=shape)
        inner = term[2 * reach : 2 * reach + image.shape[0], 2 * reach : 2 * reach + image.shape[1]]
        convolved += inner * (column[:, None] * row[None, :]).astype(np.float32)
    return convolved


def polynomial_strips(
    field: PolynomialField, *coefficients: np.ndarray
) -> Iterator[tuple[slice, tuple[np.ndarray, ...]]]:
    """Evaluate polynomials on the pixels of their field, some rows at a time, which stay in the processor's cache.

    Parameters
    ----------
    field : `PolynomialField`
        Terms.
    *coefficients : `numpy.ndarray`, (n_terms,)
        Coefficients of each polynomial.

    Yields
    ------
    rows : `slice`
        Rows of the field.
    values : `tuple` [`numpy.ndarray`, ...], each (n_rows, width), float32
        Values of each polynomial there.
    """
    u, _ = field.normalise(np.arange(field.bounds.x.start, field.bounds.x.stop), np.zeros(1))
    _, v = field.normalise(np.zeros(1), np.arange(field.bounds.y.start, field.bounds.y.stop))
    along_x, along_y = (np.polynomial.chebyshev.chebvander(t, field.order) for t in (u, v))
    along_x = along_x.T.astype(np.float32)
    # The sum over products of factors in x and y is a matrix product.
    factors = [(along_y @ field.chebyshev_matrix(values)).astype(np.float32) for values in coefficients]
    for start in range(0, len(v), _STRIP):
        rows = slice(start, min(start + _STRIP, len(v)))
        yield rows, tuple(factor[rows] @ along_x for factor in factors)
