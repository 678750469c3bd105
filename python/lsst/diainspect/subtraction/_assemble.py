"""From a filtered difference to the result of a subtraction: background, noise, score, masks, filters, PSF."""

from __future__ import annotations

__all__ = ["contaminated", "filter_window", "finish_subtraction"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
import scipy.fft
import scipy.signal
from lsst.images import Box

from ..psf import PixelBasis, PixelBasisPsf, PolynomialField, PsfFit, fwhm
from ..sky import source_pixels
from ._background import subtract_background
from ._cell_filters import LocalFilters, score_difference
from ._cells import CellGrid
from ._image_pair import ImagePair
from ._kernel_sources import KernelSources
from ._registration import excess_scatter
from ._sparse_tiles import around, grow, tiles_with
from ._star_fit import fit_stars
from ._subtraction import SubtractionResult
from ._transfer import filter_radius, image_from_transfer
from ._whitening import NoiseField, measure_noise

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

_SKY_TILE = 256
"""Side of the tiles in which the sky's noise is measured [pixel]."""

_SKY_TILES = 4
"""Most of these tiles a side: a million pixels tell the noise to a per mille."""


def filter_window(pair: ImagePair, kernel_size: int = 0) -> int:
    """Return the side of the window that filters fit in [pixel]: room for two PSFs and a kernel."""
    size = max(pair.science_psf.size, pair.template_psf.size)
    return scipy.fft.next_fast_len(2 * size + kernel_size + 8, real=True)


def finish_subtraction(
    pair: ImagePair,
    grid: CellGrid,
    difference: np.ndarray,
    filters_at: Callable[[float, float, int], LocalFilters],
    *,
    background_cell_size: int,
    whiten: bool,
    sources: KernelSources,
    flux_ratio: float,
    flux_ratio_error: float,
    astrometric_rms: float,
    source_columns: Mapping[str, np.ndarray] | None = None,
    kernel: PixelBasis | None = None,
    kernel_convolves: str | None = None,
    template_matched: np.ndarray | None = None,
    metadata: dict[str, int | float | str],
) -> SubtractionResult:
    """Finish a subtraction: background, noise, score, masks, and the filters and PSF in the form they are stored.

    Parameters
    ----------
    pair : `ImagePair`
        The inputs.
    grid : `CellGrid`
        Cells in which filters vary linearly.
    difference : `numpy.ndarray`, (height, width), float32
        Difference, white if the inputs' noise is what their variances say.
    filters_at : callable
        Takes a position in array coordinates [pixel] and a window size; returns the `LocalFilters` there.
    background_cell_size : `int`
        Mesh of the background taken from the difference [pixel]; 0 for none.
    whiten : `bool`
        Whether to look for noise that was not predicted, and filter it out.
    sources : `KernelSources`
        Sources the images were matched on.
    flux_ratio, flux_ratio_error : `float`
        Science over template flux, and the relative error with which the template was scaled.
    astrometric_rms : `float`
        Scatter of single sources' positions between the images, per coordinate [pixel].
    source_columns : mapping [`str`, `numpy.ndarray`], optional
        Further columns of their table.
    kernel, kernel_convolves, template_matched, metadata
        Passed on to `SubtractionResult`.
    """
    bad = pair.bad

    def noise_of(part: tuple[slice, slice]) -> np.ndarray:
        # In the sky a white difference has this variance whatever the filters.
        return pair.science_variance[part] + np.float32(flux_ratio**2) * pair.template_variance[part]

    if background_cell_size > 0:
        subtract_background(
            difference,
            pair.science_variance,
            pair.template_variance,
            flux_ratio**2,
            bad,
            background_cell_size,
        )
    sky_noise = _sky_noise(pair, difference, noise_of, bad) if whiten else None
    window = filter_window(pair, kernel.size if kernel is not None else 0)
    samples = _sample_filters(pair, filters_at, window)
    residual, scatter = _residual_fluxes(pair, sources, difference, flux_ratio, samples.psf())
    whitened_by = None if sky_noise is None or sky_noise.is_white else sky_noise
    scored = score_difference(
        grid,
        difference,
        pair,
        filters_at,
        window,
        astrometric_rms=astrometric_rms,
        # What is left of a static source of flux F scatters by scatter * F: next to bright stars that, and not
        # photon noise, is the error of the score.
        relative_error=max(scatter, flux_ratio_error),
        noise_field=whitened_by,
    )
    if whitened_by is not None:
        samples = samples.whitened(whitened_by)
    psf = samples.psf()
    # Filters are 1 at zero frequency, but a PSF is stored with unit sum over its stamp. Where its wings extend
    # farther the two differ, and PSF fluxes follow the stamp.
    science_filter, template_filter = samples.filters(samples.psf_size)
    difference, variance = scored.difference, scored.variance
    difference /= np.float32(samples.scale)
    variance /= np.float32(samples.scale**2)
    table = sources.to_table()
    table["residualFlux"] = residual.flux * u.nJy
    table["residualFluxErr"] = residual.flux_error * u.nJy
    for name, values in (source_columns or {}).items():
        table[name] = values
    reach = max(filter_radius(science_filter.centre()), filter_radius(template_filter.centre()))
    spread = contaminated(
        lambda part: variance[part],
        (pair.science_variance, pair.science_bad, pair.science_fill_error, science_filter.centre()),
        (pair.template_variance, pair.template_bad, pair.template_fill_error, template_filter.centre()),
    )
    spread |= _bright_star_wings(pair)
    spread &= ~bad
    edge = np.ones(pair.shape, dtype=bool)
    border = reach + int(np.ceil(fwhm(psf.centre())))
    edge[border:-border, border:-border] = False
    return SubtractionResult(
        difference=difference,
        variance=variance,
        score=scored.score,
        bad=bad,
        spread=spread,
        edge=edge,
        psf=psf,
        science_filter=science_filter,
        template_filter=template_filter,
        sample_filters=samples.filters,
        kernel=kernel,
        kernel_convolves=kernel_convolves,
        kernel_sources=table,
        template_matched=template_matched,
        metadata={
            **metadata,
            "astrometricRms": astrometric_rms,
            "cellSize": grid.cell_size,
            "filterReach": reach,
            "residualFluxScatter": scatter,
            **_describe(sky_noise),
        },
    )


def _sky_noise(
    pair: ImagePair,
    difference: np.ndarray,
    noise_of: Callable[[tuple[slice, slice]], np.ndarray],
    bad: np.ndarray,
) -> NoiseField:
    """Measure the noise of a difference where neither input shows a source, in tiles spread over the image."""
    height, width = (min(_SKY_TILE, length) for length in pair.shape)
    pixels, noise, blank, centres = [], [], [], []
    for row in _spread_starts(pair.shape[0], height):
        for column in _spread_starts(pair.shape[1], width):
            tile = (slice(row, row + height), slice(column, column + width))
            sources = bad[tile]
            for image in (
                (pair.science, pair.science_variance, pair.science_bad),
                (pair.template, pair.template_variance, pair.template_bad),
            ):
                sources = sources | source_pixels(*(np.ascontiguousarray(plane[tile]) for plane in image))
            pixels.append(difference[tile])
            centres.append((column + 0.5 * (width - 1), row + 0.5 * (height - 1)))
            noise.append(noise_of(tile))
            blank.append(~grow(sources, _SKY_DISTANCE))
    return measure_noise(np.stack(pixels), np.stack(noise), np.stack(blank), centres)


def _spread_starts(length: int, tile: int) -> list[int]:
    """Return where at most _SKY_TILES tiles that do not overlap start, spread evenly over an axis."""
    n = min(_SKY_TILES, length // tile)
    return np.linspace(0, length - tile, n).astype(int).tolist() if n > 1 else [(length - tile) // 2]


def _bright_star_wings(pair: ImagePair) -> np.ndarray:
    """Return the surroundings of pixels that were filled at far above the noise: the wings of saturated stars."""
    bright = np.zeros(pair.shape, dtype=bool)
    for bad, fill_error, variance in (
        (pair.science_bad, pair.science_fill_error, pair.science_variance),
        (pair.template_bad, pair.template_fill_error, pair.template_variance),
    ):
        # Places in one dimension are several times as fast as a mask in two.
        rows, columns = np.divmod(np.flatnonzero(bad), bad.shape[1])
        chosen = fill_error > _BRIGHT_FILL_SIGMA * np.sqrt(variance[rows, columns])
        bright[rows[chosen], columns[chosen]] = True
    widest = float(max(fwhm(pair.science_psf.centre()), fwhm(pair.template_psf.centre())))
    return grow(bright, round(_WINGS_IN_FWHM * widest))


def _residual_fluxes(
    pair: ImagePair,
    sources: KernelSources,
    difference: np.ndarray,
    flux_ratio: float,
    psf: PixelBasisPsf,
) -> tuple[PsfFit, float]:
    """Measure what is left of the matched stars: forced PSF fits, and their scatter relative to the stars' flux."""
    # A PSF that deconvolves can be a pixel wide; what is left of a star is as wide as the star.
    radius = 1.5 * float(max(fwhm(pair.science_psf.centre()), fwhm(pair.template_psf.centre())))
    _, _, fit = fit_stars(
        difference,
        pair.science_variance,
        pair.bad,
        psf,
        sources.x,
        sources.y,
        radius,
        bounds=pair.bounds,
        chosen=np.isfinite(sources.science.flux),
        iterations=1,
        other_variance=pair.template_variance,
        factor=flux_ratio**2,
    )
    stars = sources.used & sources.is_star & np.isfinite(fit.flux)
    if stars.sum() < _MIN_STARS:
        return fit, 0.0
    science_flux = sources.science.flux[stars]
    return fit, excess_scatter(fit.flux[stars] / science_flux, fit.flux_error[stars] / science_flux)


def contaminated(
    variance_of: Callable[[tuple[slice, slice]], np.ndarray],
    *inputs: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> np.ndarray:
    """Find the pixels to which filters carry a significant error from filled pixels.

    The error of a filled pixel, or its noise if that is larger, spreads with the squared filter.

    Parameters
    ----------
    variance_of : callable
        Takes rows and columns; returns the variance of the filtered image there.
    *inputs : `tuple`
        For each image that is filtered: its variance, which pixels are bad, the error of what they were filled
        with, and the filter image.

    Returns
    -------
    spread : `numpy.ndarray`, (height, width), bool
        Pixels with an error above ``_TOLERATED_SIGMA``.
    """
    shape = inputs[0][1].shape
    # Zeros cost nothing until they are touched.
    error = np.zeros(shape, dtype=np.float32)
    touched: list[tuple[slice, slice]] = []
    for noise, bad, fill_error, weights in inputs:
        reach = weights.shape[0] // 2
        for tile, rows, columns, index in tiles_with(bad):
            # In double precision: what a saturated star lacks, squared, exceeds the noise by more than 1e7.
            own = np.zeros(tuple(part.stop - part.start for part in tile))
            own[rows, columns] = np.maximum(fill_error[index] ** 2, noise[tile][rows, columns])
            wide, _ = around(tile, reach, shape)
            cut = tuple(
                slice(outer.start - inner.start + reach, outer.stop - inner.start + reach)
                for outer, inner in zip(wide, tile, strict=True)
            )
            error[wide] += scipy.signal.fftconvolve(own, weights.astype(float) ** 2, mode="full")[cut]
            touched.append(wide)
    spread = np.zeros(shape, dtype=bool)
    for wide in touched:
        spread[wide] = error[wide] > _TOLERATED_SIGMA**2 * variance_of(wide)
    return spread


@dataclass(frozen=True)
class _SampledFilters:
    """Transfer functions of filters and PSF on a grid of positions, from which spatial polynomials are made.

    Parameters
    ----------
    science, template, of_psf : `numpy.ndarray`, (N, window, window // 2 + 1)
        The transfer functions.
    x, y : `numpy.ndarray`, (N,)
        Positions [pixel].
    bounds : `lsst.images.Box`
        Region.
    psf_size : `int`
        Side of the stamp that the PSF is stored on [pixel].
    """

    science: np.ndarray
    template: np.ndarray
    of_psf: np.ndarray
    x: np.ndarray
    y: np.ndarray
    bounds: Box
    psf_size: int

    def _images(self, transfers: np.ndarray, size: int) -> np.ndarray:
        window = transfers.shape[1]
        return np.stack([image_from_transfer(transfer, window, size) for transfer in transfers])

    @property
    def scale(self) -> float:
        """Sum of the PSF over its stamp, by which filters are divided when the stamp is normalised."""
        return float(np.median(self._images(self.of_psf, self.psf_size).sum(axis=(1, 2))))

    def psf(self) -> PixelBasisPsf:
        """Return the PSF of the difference."""
        images = self._images(self.of_psf, self.psf_size)
        return PixelBasisPsf.from_images(images, self.x, self.y, self.bounds, order=_FILTER_ORDER)

    def filters(self, size: int) -> tuple[PixelBasis, PixelBasis]:
        """Return the filters of science image and template on images of a side [pixel], at most the window's."""
        scale = self.scale
        size = min(size, (self.science.shape[1] - 1) // 2 * 2 + 1)
        science, template = (
            PixelBasis.from_images(
                self._images(transfers, size) / scale, self.x, self.y, self.bounds, order=_FILTER_ORDER
            )
            for transfers in (self.science, self.template)
        )
        return science, template

    def whitened(self, noise: NoiseField) -> _SampledFilters:
        """Return what is left of these after whitening."""
        window, origin = self.science.shape[1], self.bounds
        transfer = np.stack(
            [
                noise.at(x - origin.x.start, y - origin.y.start).whitening(window)
                for x, y in zip(self.x, self.y, strict=True)
            ]
        )
        return replace(
            self,
            science=self.science * transfer,
            template=self.template * transfer,
            of_psf=self.of_psf * transfer,
        )


def _sample_filters(
    pair: ImagePair, filters_at: Callable[[float, float, int], LocalFilters], window: int
) -> _SampledFilters:
    """Evaluate the filters and the PSF on a grid of positions."""
    x, y = PolynomialField(pair.bounds, _FILTER_ORDER).sample_grid(_FILTER_ORDER + 2)
    local = [
        filters_at(float(xi), float(yi), window)
        for xi, yi in zip(x - pair.bounds.x.start, y - pair.bounds.y.start, strict=True)
    ]
    science, template, psf = (
        np.stack(transfers)
        for transfers in zip(*((f.science, f.template, f.psf) for f in local), strict=True)
    )
    size = max(pair.science_psf.size, pair.template_psf.size)
    return _SampledFilters(science, template, psf, x, y, pair.bounds, size)


def _describe(noise: NoiseField | None) -> dict[str, int | float | str]:
    if noise is None:
        return {}
    return {
        "noiseOverPredicted": float(np.sqrt(noise.mean.covariance.max())),
        "noiseCorrelation": noise.mean.correlation,
        "noiseVaries": int(noise.departures.any()),
        "whitened": int(not noise.is_white),
    }
