"""The step that all methods share: filter two images to a white difference, its variance and its score.

Within a cell the filters vary linearly with position: the image is filtered at the cell's centre and at two points
beside it, and the results are combined by pixel.

With the difference D = F_s * S - F_t * T of PSF P_D, the matched filter of a point source is P_D correlated with
D. Its variance follows from the input variances and the squared filters, source noise included, and the
astrometric scatter between the images adds the squared gradient of the template's part (Zackay, Ofek & Gal-Yam
2016, eqs. 25-31, where the result is S_corr).
"""

from __future__ import annotations

__all__ = ["CellFilters", "FilteredImages", "apply_cell_filters"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft

from ._cells import Cell, CellGrid
from ._whitening import NoiseSpectrum


@dataclass(frozen=True)
class CellFilters:
    """Transfer functions of one cell, each of shape (window, window // 2 + 1).

    Parameters
    ----------
    of_images : sequence [`numpy.ndarray`]
        What multiplies the transform of each input image; the sum is the difference.
    science, template : `numpy.ndarray`
        F_s and F_t: what the difference does in all to the science image and (subtracted) to the template.
    psf : `numpy.ndarray`
        P_D, of unit sum.
    """

    of_images: Sequence[np.ndarray]
    science: np.ndarray
    template: np.ndarray
    psf: np.ndarray


@dataclass(frozen=True)
class FilteredImages:
    """Results of `apply_cell_filters`, each (height, width), float32.

    Parameters
    ----------
    difference, variance : `numpy.ndarray`
        Difference and its variance.
    matched, matched_variance : `numpy.ndarray`
        Difference correlated with its PSF, and its variance; their ratio (with the root) is the score.
    template_part : `numpy.ndarray`
        What the template contributes to ``matched``.
    """

    difference: np.ndarray
    variance: np.ndarray
    matched: np.ndarray
    matched_variance: np.ndarray
    template_part: np.ndarray


def apply_cell_filters(
    grid: CellGrid,
    images: Sequence[np.ndarray],
    template: np.ndarray,
    variances: tuple[np.ndarray, np.ndarray],
    filters_at: Callable[[float, float], CellFilters],
    astrometric_rms: float,
    spectrum: NoiseSpectrum | None = None,
) -> FilteredImages:
    """Filter in cells.

    Parameters
    ----------
    grid : `CellGrid`
        The cells.
    images : sequence [`numpy.ndarray`], (height, width)
        Images whose filtered sum is the difference.
    template : `numpy.ndarray`, (height, width)
        Template, for the astrometric term.
    variances : `tuple` [`numpy.ndarray`, `numpy.ndarray`]
        Variances of science image and template.
    filters_at : callable
        Makes the filters at a position in array coordinates [pixel].
    astrometric_rms : `float`
        Scatter of single sources' positions between the images, per coordinate [pixel].
    spectrum : `NoiseSpectrum`, optional
        Noise that remains after the filters in units of the predicted variance; white when omitted.

    Returns
    -------
    filtered : `FilteredImages`
        Results.
    """
    shape, window = grid.shape, grid.window_size
    padded = [grid.pad(image) for image in images]
    padded_template = grid.pad(template)
    padded_variances = [grid.pad(variance) for variance in variances]
    outputs = tuple(np.zeros(shape, dtype=np.float32) for _ in range(5))

    whitening: np.ndarray | float = 1.0
    variance_factor = 1.0
    if spectrum is not None:
        whitening, variance_factor = spectrum.whitening(window), spectrum.variance_factor

    def to_image(transfer: np.ndarray) -> np.ndarray:
        return scipy.fft.irfft2(transfer, s=(window, window))

    def interpolate(transforms: list[np.ndarray], cell: Cell) -> np.ndarray:
        return sum(
            weight * to_image(part) for weight, part in zip(cell.vertex_weights, transforms, strict=True)
        )

    def squared(transfer: np.ndarray) -> np.ndarray:
        return scipy.fft.rfft2(to_image(transfer) ** 2)

    for cell in grid:
        vertices = [filters_at(x, y) for x, y in cell.vertices]
        filters = vertices[0]
        # The difference is whitened once more; its PSF and so the matched filter are what that makes of P_D.
        matching = np.conj(whitening * filters.psf)
        transforms = [scipy.fft.rfft2(image[cell.window]) for image in padded]
        differences = [
            whitening
            * sum(part * transfer for part, transfer in zip(transforms, vertex.of_images, strict=True))
            for vertex in vertices
        ]
        matched_differences = [
            np.conj(whitening * vertex.psf) * part for vertex, part in zip(vertices, differences, strict=True)
        ]
        variance_transforms = [scipy.fft.rfft2(plane[cell.window]) for plane in padded_variances]
        noise = sum(
            squared(transfer) * plane
            for transfer, plane in zip((filters.science, filters.template), variance_transforms, strict=True)
        )
        matched_noise = variance_factor * to_image(
            sum(
                squared(matching * transfer) * plane
                for transfer, plane in zip(
                    (filters.science, filters.template), variance_transforms, strict=True
                )
            )
        )
        template_part = to_image(
            matching * whitening * filters.template * scipy.fft.rfft2(padded_template[cell.window])
        )
        gradient_y, gradient_x = np.gradient(template_part)
        matched_noise += astrometric_rms**2 * (gradient_x**2 + gradient_y**2)
        parts = (
            interpolate(differences, cell),
            variance_factor * to_image(noise),
            interpolate(matched_differences, cell),
            matched_noise,
            template_part,
        )
        for total, part in zip(outputs, parts, strict=True):
            total[cell.target] += cell.weight * part[cell.inner].astype(np.float32)
    difference, variance, matched, matched_variance, template_part = outputs
    # Convolutions of a positive plane can only be negative by rounding.
    floor = np.float32(1e-6)
    np.maximum(variance, floor * np.median(variance), out=variance)
    np.maximum(matched_variance, floor * np.median(matched_variance), out=matched_variance)
    return FilteredImages(difference, variance, matched, matched_variance, template_part)
