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
from functools import lru_cache

import numpy as np
import scipy.fft

from ..quantiles import median
from ._cell_products import add_products, slope_products
from ._cell_sums import add_linear, add_scores, add_variance
from ._cells import CellGrid
from ._image_pair import ImagePair
from ._transfer import embed, inverse_rows, transform_embedded
from ._whitening import NoiseField

_NEGLIGIBLE = 1e-11
"""Squared weights this small relative to the largest are left out."""

_LEAST_VARIANCE = 1e-6
"""Least variance relative to the mean of its cell."""


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
        One or two images.
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

    # A position is asked for by its own cell and by its four neighbours; between two of them others are asked for of
    # three rows of cells.
    @lru_cache(maxsize=3 * grid.n_columns + 2)
    def embedded_at(x: float, y: float) -> tuple[np.ndarray, ...]:
        return tuple(embed(kernel, window) for kernel in filters_at(x, y))

    for cell in grid:
        transforms = tuple(scipy.fft.rfft2(cell.window_of(image)) for image in images)
        parts = [inverse_rows(add_products(embedded_at(*cell.centre), transforms), cell.inner[0])]
        if linear:
            for before, behind in (cell.along_x, cell.along_y):
                slopes = slope_products(embedded_at(*before), embedded_at(*behind), transforms)
                parts.append(inverse_rows(slopes, cell.inner[0]))
        add_linear(
            total,
            tuple(parts),
            cell.corner,
            cell.inner[1].start,
            cell.row_weight,
            cell.column_weight,
            cell.v,
            cell.u,
        )
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
    whitening: np.ndarray | None = None
    variance_factor = np.float32(1.0)
    template_level = np.float32(median(pair.template[::8, ::8].ravel()))

    def squared(transfer: np.ndarray) -> np.ndarray:
        weights = scipy.fft.irfft2(transfer, s=(filter_window, filter_window)) ** 2
        # Numbers too small for float32 are slow and say nothing.
        weights[weights < _NEGLIGIBLE * weights.max()] = 0.0
        return embed(np.fft.fftshift(weights), window)

    def propagate(
        filters: tuple[np.ndarray, np.ndarray], noise: tuple[np.ndarray, np.ndarray], rows: slice
    ) -> tuple[np.ndarray, np.float32]:
        total = add_products((squared(filters[0]), squared(filters[1])), noise)
        # Convolutions of a positive plane can only be negative by rounding.
        least = np.float32(_LEAST_VARIANCE * abs(total[0, 0]) / window**2)
        return inverse_rows(total, rows), least

    for cell in grid:
        rows, left = cell.inner[0], cell.inner[1].start
        place = (cell.corner, left, cell.row_weight, cell.column_weight)
        local = filters_at(*cell.centre, filter_window)
        if noise_field is not None:
            spectrum = noise_field.at(*cell.centre)
            whitening = spectrum.whitening(filter_window)
            variance_factor = np.float32(spectrum.variance_factor)
        matching = np.conj(local.psf if whitening is None else whitening * local.psf)
        noise = (
            scipy.fft.rfft2(cell.window_of(pair.science_variance)),
            scipy.fft.rfft2(cell.window_of(pair.template_variance)),
        )
        own, least = propagate((local.science, local.template), noise, rows)
        add_variance(variance, own, *place, variance_factor, least)
        matched_template = matching * local.template
        of_score, least = propagate((matching * local.science, matched_template), noise, rows)

        transform = scipy.fft.rfft2(cell.window_of(pair.template) - template_level)
        if whitening is not None:
            matched_template = matched_template * whitening
        transform *= transform_embedded(matched_template, filter_window, window)
        static = inverse_rows(transform, slice(rows.start - 1, rows.stop + 1))

        transform = scipy.fft.rfft2(cell.window_of(difference))
        if whitening is not None:
            transform *= transform_embedded(whitening, filter_window, window)
            add_linear(whitened, (inverse_rows(transform.copy(), rows),), *place, cell.v, cell.u)
        transform *= transform_embedded(matching, filter_window, window)
        add_scores(
            score,
            inverse_rows(transform, rows),
            of_score,
            static,
            *place,
            variance_factor,
            least,
            np.float32(astrometric_rms**2),
            np.float32(relative_error**2),
        )
    return ScoredDifference(whitened, variance, score)
