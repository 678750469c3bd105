"""From filtered images to the result of a subtraction: background, score, masks, filters and PSF as datasets."""

from __future__ import annotations

__all__ = ["LocalFilters", "assemble_result", "contaminated", "filter_to_white"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal
import sep

from ..psf import PixelBasis, PixelBasisPsf, PolynomialField, PsfFit, fwhm
from ..sky import source_pixels
from ._cell_filters import CellFilters, FilteredImages, apply_cell_filters
from ._cells import CellGrid
from ._image_pair import ImagePair
from ._kernel_sources import KernelSources
from ._registration import excess_scatter
from ._star_fit import fit_stars
from ._subtraction import SubtractionResult
from ._transfer import filter_radius, image_from_transfer
from ._whitening import NoiseSpectrum, measure_noise_spectrum

_FILTER_ORDER = 3
"""Spatial order with which the filters and the difference's PSF are stored."""

_MIN_STARS = 5
"""Fewest stars whose residuals tell a scatter."""

_SKY_DISTANCE = 8
"""Distance from pixels of sources [pixel] at which the sky's noise is measured."""

_BRIGHT_FILL_SIGMA = 100.0
"""Filled pixels with an error of this many sigma are the cores of saturated stars."""

_WINGS_IN_FWHM = 4.5
"""Radius around them in which the star's wings, at 1e-4 of the lost core, are not matched to the noise."""

_TOLERATED_SIGMA = 0.3
"""Error, in sigma of the difference, that a filled pixel may leave in another before that is flagged."""

_SOURCE_THRESHOLD = 3.0
"""Pixels this many sigma from zero, and their neighbours, are kept out of the difference's background."""


def filter_to_white(
    pair: ImagePair,
    grid: CellGrid,
    images: Sequence[np.ndarray],
    template: np.ndarray,
    filters_at: Callable[[float, float], CellFilters],
    astrometric_rms: float,
    *,
    whiten: bool,
) -> tuple[FilteredImages, NoiseSpectrum | None]:
    """Filter in cells; once more where the sky of the result is not the white noise that was predicted.

    Parameters
    ----------
    pair : `ImagePair`
        The inputs.
    grid, images, template, filters_at, astrometric_rms
        As for `apply_cell_filters`.
    whiten : `bool`
        Whether to look for noise that was not predicted.

    Returns
    -------
    filtered : `FilteredImages`
        Result.
    spectrum : `NoiseSpectrum` or `None`
        What was measured; None when not looked for.
    """
    variances = (pair.science_variance, pair.template_variance)
    filtered = apply_cell_filters(grid, images, template, variances, filters_at, astrometric_rms)
    if not whiten:
        return filtered, None
    sources = source_pixels(pair.science, pair.science_variance, pair.science_bad)
    sources |= source_pixels(pair.template, pair.template_variance, pair.template_bad)
    sky = ~_grow(sources | pair.bad, _SKY_DISTANCE)
    spectrum = measure_noise_spectrum(filtered.difference, filtered.variance, sky)
    if not spectrum.is_white:
        filtered = apply_cell_filters(
            grid, images, template, variances, filters_at, astrometric_rms, spectrum
        )
    return filtered, spectrum


@dataclass(frozen=True)
class LocalFilters:
    """Transfer functions at one position: of the science image, of the template, and of the difference's PSF."""

    science: np.ndarray
    template: np.ndarray
    psf: np.ndarray


def assemble_result(
    pair: ImagePair,
    filtered: FilteredImages,
    filters_at: Callable[[float, float, int], LocalFilters],
    background_cell_size: int,
    *,
    sources: KernelSources,
    flux_ratio_error: float,
    spectrum: NoiseSpectrum | None,
    source_columns: Mapping[str, np.ndarray] | None = None,
    kernel: PixelBasis | None = None,
    kernel_convolves: str | None = None,
    template_matched: np.ndarray | None = None,
    metadata: dict[str, int | float | str],
) -> SubtractionResult:
    """Finish a subtraction.

    Parameters
    ----------
    pair : `ImagePair`
        The inputs.
    filtered : `FilteredImages`
        Difference and matched difference with their variances.
    filters_at : callable
        Takes a position [pixel, in the frame of the pair's bounds] and a window size; returns `LocalFilters`.
    background_cell_size : `int`
        Mesh of the background taken from the difference [pixel]; 0 for none.
    sources : `KernelSources`
        Sources the images were matched on.
    flux_ratio_error : `float`
        Relative error of the flux ratio with which the template was subtracted.
    spectrum : `NoiseSpectrum` or `None`
        Noise of the difference by which it was whitened.
    source_columns : mapping [`str`, `numpy.ndarray`], optional
        Further columns of their table.
    kernel, kernel_convolves, template_matched, metadata
        Passed on to `SubtractionResult`.
    """
    size = max(pair.science_psf.size, pair.template_psf.size)
    window = scipy.fft.next_fast_len(2 * size + 2 * (kernel.size if kernel is not None else 8), real=True)
    science_filter, template_filter, psf, scale = _sample_filters(pair, filters_at, size, window, spectrum)

    difference, matched = filtered.difference, filtered.matched
    if background_cell_size > 0:
        background = _background(difference, filtered.variance, pair.bad, background_cell_size)
        difference = difference - background
        # P_D has unit sum and the background is smooth, so the matched filter passes it as it is.
        matched = matched - background
    # Filters are 1 at zero frequency, but a PSF is stored with unit sum over its stamp. Where its wings extend
    # farther the two differ, and PSF fluxes follow the stamp.
    difference, variance = difference / np.float32(scale), filtered.variance / np.float32(scale**2)
    residual, scatter = _residual_fluxes(pair, sources, difference, variance, psf)
    # What is left of a static source of flux F scatters by scatter * F: next to bright stars that, and not photon
    # noise, is the error of the score.
    relative_error = max(scatter, flux_ratio_error)
    matched_variance = filtered.matched_variance + (relative_error * filtered.template_part) ** 2
    table = sources.to_table()
    table["residualFlux"] = residual.flux * u.nJy
    table["residualFluxErr"] = residual.flux_error * u.nJy
    for name, values in (source_columns or {}).items():
        table[name] = values
    reach = max(filter_radius(science_filter.centre()), filter_radius(template_filter.centre()))
    spread = contaminated(
        variance,
        (pair.science_variance, pair.science_bad, pair.science_fill_error, science_filter.centre()),
        (pair.template_variance, pair.template_bad, pair.template_fill_error, template_filter.centre()),
    )
    spread |= _bright_star_wings(pair)
    spread &= ~pair.bad
    edge = np.ones(pair.shape, dtype=bool)
    border = reach + int(np.ceil(fwhm(psf.centre())))
    edge[border:-border, border:-border] = False
    return SubtractionResult(
        difference=difference,
        variance=variance,
        score=matched / np.sqrt(matched_variance),
        bad=pair.bad,
        spread=spread,
        edge=edge,
        psf=psf,
        science_filter=science_filter,
        template_filter=template_filter,
        kernel=kernel,
        kernel_convolves=kernel_convolves,
        kernel_sources=table,
        template_matched=template_matched,
        metadata={**metadata, "filterReach": reach, "residualFluxScatter": scatter, **_describe(spectrum)},
    )


def _bright_star_wings(pair: ImagePair) -> np.ndarray:
    """Return the surroundings of pixels that were filled at far above the noise: the wings of saturated stars."""
    bright = np.zeros(pair.shape, dtype=bool)
    for bad, fill_error, variance in (
        (pair.science_bad, pair.science_fill_error, pair.science_variance),
        (pair.template_bad, pair.template_fill_error, pair.template_variance),
    ):
        bright[bad] |= fill_error > _BRIGHT_FILL_SIGMA * np.sqrt(variance[bad])
    widest = float(max(fwhm(pair.science_psf.centre()), fwhm(pair.template_psf.centre())))
    return _grow(bright, round(_WINGS_IN_FWHM * widest))


def _residual_fluxes(
    pair: ImagePair,
    sources: KernelSources,
    difference: np.ndarray,
    variance: np.ndarray,
    psf: PixelBasisPsf,
) -> tuple[PsfFit, float]:
    """Measure what is left of the matched stars: forced PSF fits, and their scatter relative to the stars' flux."""
    # A whitened PSF can be a pixel wide; what is left of a star is as wide as the star.
    radius = 1.5 * float(max(fwhm(pair.science_psf.centre()), fwhm(pair.template_psf.centre())))
    _, _, fit = fit_stars(difference, variance, pair.bad, psf, sources.x, sources.y, radius, iterations=1)
    stars = sources.used & sources.is_star & np.isfinite(fit.flux)
    if stars.sum() < _MIN_STARS:
        return fit, 0.0
    science_flux = sources.science.flux[stars]
    return fit, excess_scatter(fit.flux[stars] / science_flux, fit.flux_error[stars] / science_flux)


def contaminated(
    variance: np.ndarray, *inputs: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
) -> np.ndarray:
    """Find the pixels to which filters carry a significant error from filled pixels.

    The error of a filled pixel, or its noise if that is larger, spreads with the squared filter.

    Parameters
    ----------
    variance : `numpy.ndarray`, (height, width)
        Variance of the filtered image.
    *inputs : `tuple`
        For each image that is filtered: its variance, which pixels are bad, the error of what they were filled
        with, and the filter image.

    Returns
    -------
    spread : `numpy.ndarray`, (height, width), bool
        Pixels with an error above ``_TOLERATED_SIGMA``.
    """
    error = np.zeros(variance.shape)
    for noise, bad, fill_error, weights in inputs:
        if not bad.any():
            continue
        own = np.zeros(variance.shape)
        own[bad] = np.maximum(fill_error**2, noise[bad])
        error += scipy.signal.oaconvolve(own, weights**2, mode="same")
    return error > _TOLERATED_SIGMA**2 * variance


def _sample_filters(
    pair: ImagePair,
    filters_at: Callable[[float, float, int], LocalFilters],
    size: int,
    window: int,
    spectrum: NoiseSpectrum | None,
) -> tuple[PixelBasis, PixelBasis, PixelBasisPsf, float]:
    """Return the filters, the PSF, and the sum over its stamp by which the first two were divided."""
    x, y = PolynomialField(pair.bounds, _FILTER_ORDER).sample_grid(_FILTER_ORDER + 2)
    images: tuple[list[np.ndarray], ...] = ([], [], [])
    whitening = 1.0 if spectrum is None or spectrum.is_white else spectrum.whitening(window)
    for xi, yi in zip(x, y, strict=True):
        local = filters_at(float(xi), float(yi), window)
        for stack, transfer in zip(images, (local.science, local.template, local.psf), strict=True):
            stack.append(image_from_transfer(whitening * transfer, window, size))
    science, template, psf = (np.stack(stack) for stack in images)
    scale = float(np.median(psf.sum(axis=(1, 2))))
    return (
        PixelBasis.from_images(science / scale, x, y, pair.bounds, order=_FILTER_ORDER),
        PixelBasis.from_images(template / scale, x, y, pair.bounds, order=_FILTER_ORDER),
        PixelBasisPsf.from_images(psf, x, y, pair.bounds, order=_FILTER_ORDER),
        scale,
    )


def _describe(spectrum: NoiseSpectrum | None) -> dict[str, int | float | str]:
    if spectrum is None:
        return {}
    return {
        "noiseOverPredicted": float(np.sqrt(spectrum.covariance.max())),
        "noiseCorrelation": spectrum.correlation,
        "whitened": int(not spectrum.is_white),
    }


def _background(difference: np.ndarray, variance: np.ndarray, bad: np.ndarray, cell_size: int) -> np.ndarray:
    significant = np.abs(difference - np.median(difference[~bad])) > _SOURCE_THRESHOLD * np.sqrt(variance)
    # A lone pixel at 3 sigma is noise; a blob of them is a source.
    sources = scipy.ndimage.binary_opening(significant, np.ones((2, 2)))
    mask = _grow(sources, 3) | bad
    cell = min(cell_size, *difference.shape)
    return sep.Background(np.ascontiguousarray(difference), mask=mask, bw=cell, bh=cell).back()


def _grow(mask: np.ndarray, radius: int) -> np.ndarray:
    if radius <= 0 or not mask.any():
        return mask
    return scipy.ndimage.distance_transform_edt(~mask) <= radius
