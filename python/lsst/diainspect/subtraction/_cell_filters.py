"""Spatially varying linear filters, applied in cells, and the two steps that all methods share with them.

Within a cell a filter varies linearly with position: the image is filtered with the filter of the cell's centre and
with the filter's two slopes, and the results are combined by pixel. Filters reach over little more than a PSF, so they
are made on a small window, and only their transforms have the size of the cell's.

With the difference D = F_s * S - F_t * T of PSF P_D, the matched filter of a point source is P_D correlated with
D. Its variance follows from the input variances and the squared filters, source noise included, and the
astrometric scatter between the images adds the squared gradient of the template's part (Zackay, Ofek & Gal-Yam
2016, eqs. 25-31, where the result is S_corr).
"""

from __future__ import annotations

__all__ = ["LocalFilters", "ScoredDifference", "filter_in_cells", "score_difference"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.fft

from ._cells import Cell, CellGrid
from ._image_pair import ImagePair
from ._transfer import embed, transform_embedded
from ._whitening import NoiseField

_NEGLIGIBLE = 1e-11
"""Squared weights this small relative to the largest are left out."""


@dataclass(frozen=True)
class LocalFilters:
    """Transfer functions at one position, (window, window // 2 + 1).

    Parameters
    ----------
    science, template : `numpy.ndarray`
        F_s and F_t: what the difference does to the science image and, before it is subtracted, to the template.
    psf : `numpy.ndarray`
        P_D, of unit sum.
    """

    science: np.ndarray
    template: np.ndarray
    psf: np.ndarray


@dataclass(frozen=True)
class ScoredDifference:
    """A difference and its detection statistic, each (height, width), float32.

    Parameters
    ----------
    difference, variance : `numpy.ndarray`
        Difference and its variance.
    score : `numpy.ndarray`
        Difference correlated with its PSF, in units of its own sigma.
    """

    difference: np.ndarray
    variance: np.ndarray
    score: np.ndarray


def filter_in_cells(
    grid: CellGrid,
    images: Sequence[np.ndarray],
    filters_at: Callable[[float, float], Sequence[np.ndarray]],
    *,
    linear: bool = True,
) -> np.ndarray:
    """Filter images and add them up.

    Parameters
    ----------
    grid : `CellGrid`
        The cells.
    images : sequence [`numpy.ndarray`], (height, width), float32
        Images.
    filters_at : callable
        Takes a position (x, y) in array coordinates [pixel]; returns a filter (size, size) for each image, centred
        on pixel size // 2.
    linear : `bool`, optional
        Whether filters vary linearly within a cell; otherwise those of its centre are used.

    Returns
    -------
    filtered : `numpy.ndarray`, (height, width), float32
        Sum of the filtered images.
    """
    window = grid.window_size
    total = np.zeros(grid.shape, dtype=np.float32)
    # Most positions are asked for by five cells.
    filters_at = cache(filters_at)
    for cell in grid:
        transforms = [scipy.fft.rfft2(cell.window_of(image)) for image in images]

        def apply(filters: Sequence[np.ndarray], transforms: list[np.ndarray], cell: Cell) -> np.ndarray:
            total = embed(filters[0], window)
            total *= transforms[0]
            for kernel, transform in zip(filters[1:], transforms[1:], strict=True):
                product = embed(kernel, window)
                product *= transform
                total += product
            return scipy.fft.irfft2(total, s=(window, window), overwrite_x=True)[cell.inner]

        part = apply(filters_at(*cell.centre), transforms, cell)
        if linear:
            for (before, behind), distance in ((cell.along_x, cell.u), (cell.along_y, cell.v)):
                slope = [
                    far - near for far, near in zip(filters_at(*behind), filters_at(*before), strict=True)
                ]
                sloped = apply(slope, transforms, cell)
                sloped *= distance
                part += sloped
        part *= cell.weight
        total[cell.target] += part
    return total


def score_difference(
    grid: CellGrid,
    difference: np.ndarray,
    pair: ImagePair,
    filters_at: Callable[[float, float, int], LocalFilters],
    filter_window: int,
    *,
    astrometric_rms: float,
    relative_error: float,
    noise_field: NoiseField | None = None,
) -> ScoredDifference:
    """Propagate the variance of a difference and correlate it with its PSF, after whitening where that is needed.

    The matched filter and the squared filters are those of the cell's centre: what that costs in signal-to-noise is
    of second order in the change of the PSF within a cell.

    Parameters
    ----------
    grid : `CellGrid`
        The cells.
    difference : `numpy.ndarray`, (height, width), float32
        Difference.
    pair : `ImagePair`
        The images that it was made from.
    filters_at : callable
        Takes a position (x, y) in array coordinates [pixel] and a window; returns the filters that made it there.
    filter_window : `int`
        Side of the window on which filters are made [pixel].
    astrometric_rms : `float`
        Scatter of single sources' positions between the images, per coordinate [pixel].
    relative_error : `float`
        Scatter of what is left of a static source, relative to its flux.
    noise_field : `NoiseField`, optional
        Noise of the difference in units of the predicted variance; white when omitted.

    Returns
    -------
    scored : `ScoredDifference`
        Results.
    """
    window = grid.window_size
    variance, score = (np.zeros(grid.shape, dtype=np.float32) for _ in range(2))
    whitened = difference if noise_field is None else np.zeros(grid.shape, dtype=np.float32)
    whitening: np.ndarray | float = 1.0
    variance_factor = np.float32(1.0)
    template_level = np.float32(np.median(pair.template[::8, ::8]))

    def to_image(transform: np.ndarray, cell: Cell) -> np.ndarray:
        return scipy.fft.irfft2(transform, s=(window, window), overwrite_x=True)[cell.inner]

    def squared(transfer: np.ndarray) -> np.ndarray:
        weights = scipy.fft.irfft2(transfer, s=(filter_window, filter_window)) ** 2
        # Numbers too small for float32 are slow and say nothing.
        weights[weights < _NEGLIGIBLE * weights.max()] = 0.0
        return embed(np.fft.fftshift(weights), window)

    def propagate(filters: tuple[np.ndarray, np.ndarray], noise: list[np.ndarray], cell: Cell) -> np.ndarray:
        total = squared(filters[0])
        total *= noise[0]
        part = squared(filters[1])
        part *= noise[1]
        total += part
        propagated = to_image(total, cell)
        propagated *= variance_factor
        # Convolutions of a positive plane can only be negative by rounding.
        return np.maximum(propagated, np.float32(1e-6) * np.median(propagated[::8, ::8]), out=propagated)

    def add(total: np.ndarray, cell: Cell, part: np.ndarray) -> None:
        part *= cell.weight
        total[cell.target] += part

    for cell in grid:
        local = filters_at(*cell.centre, filter_window)
        if noise_field is not None:
            spectrum = noise_field.at(*cell.centre)
            whitening, variance_factor = (
                spectrum.whitening(filter_window),
                np.float32(spectrum.variance_factor),
            )
        matching = np.conj(whitening * local.psf)
        noise = [
            scipy.fft.rfft2(cell.window_of(plane))
            for plane in (pair.science_variance, pair.template_variance)
        ]
        add(variance, cell, propagate((local.science, local.template), noise, cell))
        error = propagate((matching * local.science, matching * local.template), noise, cell)

        transform = scipy.fft.rfft2(cell.window_of(pair.template) - template_level)
        transform *= transform_embedded(matching * whitening * local.template, filter_window, window)
        static = scipy.fft.irfft2(transform, s=(window, window), overwrite_x=True)
        gradient = _squared_gradient(static, cell.inner)
        gradient *= np.float32(astrometric_rms**2)
        error += gradient
        static = static[cell.inner]
        static *= np.float32(relative_error)
        static *= static
        error += static

        transform = scipy.fft.rfft2(cell.window_of(difference))
        if noise_field is not None:
            transform *= transform_embedded(np.asarray(whitening), filter_window, window)
            add(whitened, cell, to_image(transform.copy(), cell))
        transform *= transform_embedded(matching, filter_window, window)
        matched = to_image(transform, cell)
        matched /= np.sqrt(error, out=error)
        add(score, cell, matched)
    return ScoredDifference(whitened, variance, score)


def _squared_gradient(image: np.ndarray, inner: tuple[slice, slice]) -> np.ndarray:
    """Return the squared gradient in a part of an image that does not touch its border."""
    rows, columns = inner
    right, left = slice(columns.start + 1, columns.stop + 1), slice(columns.start - 1, columns.stop - 1)
    above, below = slice(rows.start + 1, rows.stop + 1), slice(rows.start - 1, rows.stop - 1)
    along_x = image[rows, right] - image[rows, left]
    along_y = image[above, columns] - image[below, columns]
    along_x *= along_x
    along_y *= along_y
    along_x += along_y
    along_x *= np.float32(0.25)
    return along_x
