"""The PSF that point sources have in a difference, against the one the difference says it has."""

from __future__ import annotations

__all__ = ["DifferencePsf", "measure_difference_psf"]

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from lsst.images import MaskedImage

from ..detection import without_sky_sources
from ..masks import PLANES_BAD_FOR_SUBTRACTION, masked_by
from ..psf import PixelBasis, centre_crop, disk_mask, fit_psf, fwhm, shift_images
from ..stamps import gather_stamps, stamp_origin

_BAD_PLANES = (*PLANES_BAD_FOR_SUBTRACTION, "DETECTION_EDGE", "FILTER_SPREAD")

_RADIUS_IN_FWHM = 2.0
"""Radius of the fit and of the aperture."""

_LEAST_FLOOR = 0.02
"""Scatter of widths and flux ratios below which sources are not told apart: one that is very bright must not decide."""

_LARGEST_LOBE = 0.2
"""Sources with a lobe of the other sign larger than this part of the peak are no points."""

_OUTLIER = 4.0


@dataclass(frozen=True)
class DifferencePsf:
    """Bright positive point sources of a difference, stacked.

    Parameters
    ----------
    n : `int`
        Sources.
    width_ratio, width_ratio_error : `float`
        Width over that of the model; NaN without sources.
    flux_ratio, flux_ratio_error : `float`
        Flux in an aperture, corrected to the whole model, over the flux of the model's fit.
    image, error, model : `numpy.ndarray`, (size, size)
        Mean of the sources, each of unit flux, its standard error, and the mean of their models.
    """

    n: int
    width_ratio: float
    width_ratio_error: float
    flux_ratio: float
    flux_ratio_error: float
    image: np.ndarray
    error: np.ndarray
    model: np.ndarray


def measure_difference_psf(
    difference: MaskedImage, sources: Table, psf: PixelBasis, size: int, *, min_snr: float = 20.0
) -> DifferencePsf:
    """Measure width and flux of bright positive sources, and stack them.

    Width and flux are those of a fit of PSF, shift, width and background. Sources next to masked pixels, with a lobe of
    the other sign or in a blend are left out, and so are outliers of the width, which are not points.

    Parameters
    ----------
    difference : `lsst.images.MaskedImage`
        Difference [nJy].
    sources : `astropy.table.Table`
        DIA sources.
    psf : `PixelBasis`
        PSF of the difference.
    size : `int`
        Side of the stack, odd [pixel].
    min_snr : `float`, optional
        Least S/N of a source.
    """
    sources = without_sky_sources(sources)
    chosen = ~np.asarray(sources["isNegative"], dtype=bool) & (np.asarray(sources["snr"]) >= min_snr)
    # Other catalogues need not have these columns.
    if "lobeRatio" in sources.colnames:
        chosen &= ~(np.abs(np.asarray(sources["lobeRatio"], dtype=float)) > _LARGEST_LOBE)
    if "nBlended" in sources.colnames:
        chosen &= np.asarray(sources["nBlended"]) <= 1
    x, y = (np.asarray(sources[name], dtype=float)[chosen] for name in ("x", "y"))
    x0, y0 = stamp_origin(x, y, size)
    box = difference.bbox
    origin = (x0 - box.x.start, y0 - box.y.start)
    good = ~masked_by(difference.mask, _BAD_PLANES) & (difference.variance.array > 0)
    here = gather_stamps(good, *origin, size, False).all(axis=(1, 2))
    x, y, x0, y0 = x[here], y[here], x0[here], y0[here]
    origin = (x0 - box.x.start, y0 - box.y.start)
    nothing = np.full((size, size), np.nan)
    empty = DifferencePsf(0, *(np.nan,) * 4, nothing, nothing, nothing)
    if len(x) == 0:
        return empty
    pixels, variance = (
        gather_stamps(image.array, *origin, size, np.nan).astype(float)
        for image in (difference.image, difference.variance)
    )
    models = psf.evaluate(x, y)
    radius = min(_RADIUS_IN_FWHM * float(np.median(fwhm(models))), size // 2)
    fit = fit_psf(pixels, 1.0 / variance, models, x - (x0 + size // 2), y - (y0 + size // 2), radius)
    width, width_error = fit.width, fit.width_error
    # A first-order width: where it is large the source is no point.
    kept = np.isfinite(width) & (np.abs(width) < 0.5) & (fit.flux > 0)
    if kept.any():
        floor = np.hypot(width_error, _LEAST_FLOOR)
        kept &= np.abs(width - np.median(width[kept])) < _OUTLIER * np.hypot(floor, _scatter(width[kept]))
    if not kept.any():
        return empty
    width_ratio, width_ratio_error = _mean(1.0 + width[kept], width_error[kept])
    dx, dy, flux = fit.dx[kept], fit.dy[kept], fit.flux[kept]
    model = centre_crop(models[kept], size)
    # The wings of a source are no background.
    beyond = pixels[kept] - flux[:, None, None] * shift_images(model, dx, dy)
    background, background_error = _background(beyond, variance[kept], dx, dy, radius)
    unit = shift_images(pixels[kept] - background[:, None, None], -dx, -dy) / flux[:, None, None]
    inside = disk_mask(size, np.zeros(1), np.zeros(1), radius)[0]
    share = (model * inside).sum(axis=(1, 2)) / models[kept].sum(axis=(1, 2))
    ratio = (unit * inside).sum(axis=(1, 2)) / share
    noise2 = (variance[kept] * inside).sum(axis=(1, 2)) + (inside.sum() * background_error) ** 2
    ratio_error = np.sqrt(noise2) / (flux * share)
    flux_ratio, flux_ratio_error = _mean(ratio, ratio_error)
    weight = 1.0 / (ratio_error**2 + _LEAST_FLOOR**2)
    weight = (weight / weight.sum())[:, None, None]
    mean = (weight * unit).sum(axis=0)
    n = len(flux)
    scatter = (weight**2 * (unit - mean) ** 2).sum(axis=0)
    error = np.sqrt(scatter * n / (n - 1)) if n > 1 else nothing
    return DifferencePsf(
        n,
        width_ratio,
        width_ratio_error,
        flux_ratio,
        flux_ratio_error,
        mean,
        error,
        (weight * model).sum(axis=0),
    )


def _scatter(values: np.ndarray) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _mean(values: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Return the weighted mean, with the larger of the propagated error and that from the scatter."""
    weight = 1.0 / (errors**2 + _LEAST_FLOOR**2)
    mean = float(np.average(values, weights=weight))
    propagated = np.sqrt((weight**2 * errors**2).sum()) / weight.sum()
    n = len(values)
    if n < 2:
        return mean, float(propagated)
    seen = np.sqrt((weight**2 * (values - mean) ** 2).sum() * n / (n - 1)) / weight.sum()
    return mean, float(max(propagated, seen))


def _background(
    pixels: np.ndarray, variance: np.ndarray, dx: np.ndarray, dy: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the median of the pixels outside the aperture of each stamp, and its error; each has corners there."""
    outside = ~disk_mask(pixels.shape[-1], dx, dy, radius)
    level = np.nanmedian(np.where(outside, pixels, np.nan), axis=(1, 2))
    n = outside.sum(axis=(1, 2))
    return level, np.sqrt(0.5 * np.pi * (np.where(outside, variance, 0.0).sum(axis=(1, 2)) / n) / n)
