"""A difference image that another pipeline made, taken as the result of a method.

What the filters were that made it is not stored with it. Here they are those that the algorithm, matching and
decorrelation, would have with the two PSF models: with kappa = P_s / P_t, F_s = phi and F_t = phi kappa
(or F_s = phi kappa and F_t = phi with kappa = P_t / P_s where the science image was convolved).
"""

from __future__ import annotations

__all__ = ["adopt_difference"]

from typing import Literal

import astropy.units as u
import numpy as np
import scipy.fft
from astropy.table import Table
from lsst.images import MaskedImage
from lsst.images.psfs import PointSpreadFunction

from ..detection import matched_filter_score
from ..masks import PLANES_BAD_FOR_SUBTRACTION, masked_by
from ..psf import PixelBasis, PixelBasisPsf, PolynomialField, fwhm
from ._decorrelation import decorrelation_transfer
from ._errors import NoOverlapError, UnitMismatchError
from ._image_pair import ImagePair, fill_bad_pixels
from ._kernel_sources import KernelSources, select_kernel_sources
from ._matched_subtraction import choose_direction
from ._sky_variance import SkyVariance
from ._star_fit import fit_stars
from ._subtraction import SubtractionResult
from ._transfer import image_from_transfer, transfer_from_image

_VANISHING = 3e-4
"""Modulus of the PSF transforms below which both are taken to vanish, and their ratio to tend to one."""

_FILTER_ORDER = 3
"""Spatial order with which filters are stored."""

_CELL = 512
"""Cells in which the sky's variance is measured [pixel]."""


def adopt_difference(
    pair: ImagePair,
    difference: MaskedImage,
    psf: PointSpreadFunction | PixelBasisPsf,
    *,
    convolve: str = "auto",
    is_decorrelated: bool = True,
    psf_from: Literal["image", "filters"] = "image",
    psf_order: int = 3,
    min_star_snr: float = 20.0,
    max_stars: int = 256,
) -> SubtractionResult:
    """Take a difference image as the result of a subtraction.

    Parameters
    ----------
    pair : `ImagePair`
        The images that it was made from.
    difference : `lsst.images.MaskedImage`
        Difference in units convertible to nJy, with mask and variance; its box holds that of the pair.
    psf : `PointSpreadFunction` or `PixelBasisPsf`
        PSF that is stored with it.
    convolve : `str`, optional
        Which image was convolved, "science" or "template"; "auto" for the one with the sharper PSF.
    is_decorrelated : `bool`, optional
        Whether it was decorrelated.
    psf_from : `str`, optional
        Whether the PSF is the one stored ("image") or follows from the filters ("filters").
    psf_order : `int`, optional
        Spatial order with which a PSF that has to be sampled is represented.
    min_star_snr, max_stars : optional
        Least signal-to-noise ratio and largest number of the static sources that are looked at.

    Returns
    -------
    result : `SubtractionResult`
        The difference, with a score made by its PSF, approximate filters, and the static sources in the images as
        ``kernel_sources`` (which of them the other pipeline used is not known).

    Raises
    ------
    NoOverlapError
        If the difference does not cover the pair's pixels.
    UnitMismatchError
        If its unit cannot be converted to nJy.
    TooFewKernelSourcesError
        If there is not a single static source.
    """
    box, bounds = difference.bbox, pair.bounds
    if not (
        box.x.start <= bounds.x.start
        and bounds.x.stop <= box.x.stop
        and box.y.start <= bounds.y.start
        and bounds.y.stop <= box.y.stop
    ):
        raise NoOverlapError(f"The difference {box} does not cover the common pixels {bounds} of the images.")
    difference = difference[bounds]
    factor = _factor(difference)
    pixels = np.asarray(difference.image.array, dtype=np.float32) * np.float32(factor)
    variance = np.asarray(difference.variance.array, dtype=np.float32) * np.float32(factor**2)
    bad = masked_by(difference.mask, PLANES_BAD_FOR_SUBTRACTION) | pair.bad
    bad |= ~np.isfinite(pixels) | ~(variance > 0)
    pixels, variance = fill_bad_pixels(pixels, bad), fill_bad_pixels(variance, bad)

    direction = choose_direction(pair, convolve)
    science_filter, template_filter, own_psf = _approximate_filters(pair, direction, is_decorrelated)
    if psf_from == "filters":
        psf = own_psf
    elif not isinstance(psf, PixelBasisPsf):
        psf = PixelBasisPsf.from_point_spread_function(psf, bounds, order=psf_order)
    sources = select_kernel_sources(
        pair, min_snr=min_star_snr, max_sources=max_stars, stars_only=False, min_sources=1
    )
    return SubtractionResult(
        difference=pixels,
        variance=variance,
        score=_score(pixels, variance, bad, psf),
        bad=bad,
        spread=np.zeros(bad.shape, dtype=bool),
        edge=masked_by(difference.mask, ("DETECTION_EDGE",)),
        psf=psf,
        science_filter=science_filter,
        template_filter=template_filter,
        kernel_convolves=direction,
        kernel_sources=_residuals(pair, sources, pixels, variance, bad, psf),
        metadata={
            "convolvedImage": direction,
            "filtersAreApproximate": 1,
            "nKernelSources": int(sources.used.sum()),
        },
    )


def _factor(difference: MaskedImage) -> float:
    unit = difference.unit
    try:
        return float(unit.to(u.nJy))
    except (AttributeError, u.UnitConversionError):
        raise UnitMismatchError(
            f"The difference image has pixels in {unit}, which cannot be converted to nJy; calibrate it first.",
            unit=str(unit),
        ) from None


def _approximate_filters(
    pair: ImagePair, direction: str, is_decorrelated: bool
) -> tuple[PixelBasis, PixelBasis, PixelBasisPsf]:
    """Return the filters of science image and template and the PSF that they make."""
    size = max(pair.science_psf.size, pair.template_psf.size)
    window = scipy.fft.next_fast_len(4 * size, real=True)
    good = ~pair.bad
    science_sky = SkyVariance(pair.science_variance, good, _CELL)
    template_sky = SkyVariance(pair.template_variance, good, _CELL)

    def images_at(x: float, y: float) -> np.ndarray:
        own = transfer_from_image(pair.science_psf.at(x, y), window)
        p_s, p_t = _filled(own, transfer_from_image(pair.template_psf.at(x, y), window))
        place = x - pair.bounds.x.start, y - pair.bounds.y.start
        noise = science_sky.at(*place), template_sky.at(*place)
        convolves_template = direction == "template"
        kappa = p_s / p_t if convolves_template else p_t / p_s
        unconvolved, convolved = noise if convolves_template else noise[::-1]
        phi = (
            decorrelation_transfer(kappa, unconvolved, convolved) if is_decorrelated else np.ones_like(kappa)
        )
        science, template = (phi, phi * kappa) if convolves_template else (phi * kappa, phi)
        return np.stack(
            [image_from_transfer(transfer, window, size) for transfer in (science, template, science * own)]
        )

    x, y = PolynomialField(pair.bounds, _FILTER_ORDER).sample_grid(_FILTER_ORDER + 2)
    images = np.stack([images_at(float(xi), float(yi)) for xi, yi in zip(x, y, strict=True)])
    science, template = (
        PixelBasis.from_images(images[:, n], x, y, pair.bounds, order=_FILTER_ORDER) for n in (0, 1)
    )
    return (
        science,
        template,
        PixelBasisPsf.from_images(images[:, 2], x, y, pair.bounds, order=_FILTER_ORDER),
    )


def _filled(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two transforms with a small number added where both vanish, so that their ratio tends to one there."""
    modulus = np.sqrt(np.abs(first) ** 2 + np.abs(second) ** 2)
    filling = _VANISHING * np.exp(-((modulus / _VANISHING) ** 2))
    return first + filling, second + filling


def _score(pixels: np.ndarray, variance: np.ndarray, bad: np.ndarray, psf: PixelBasisPsf) -> np.ndarray:
    """Return the difference filtered by its PSF, 0 where there is too little to filter."""
    return np.nan_to_num(matched_filter_score(pixels, variance, bad, psf), nan=0.0)


def _residuals(
    pair: ImagePair,
    sources: KernelSources,
    pixels: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray,
    psf: PixelBasisPsf,
) -> Table:
    """Return the static sources with the flux that is left of each."""
    radius = 1.5 * float(max(fwhm(pair.science_psf.centre()), fwhm(pair.template_psf.centre())))
    _, _, fit = fit_stars(pixels, variance, bad, psf, sources.x, sources.y, radius, iterations=1)
    table = sources.to_table()
    table["residualFlux"] = fit.flux * u.nJy
    table["residualFluxErr"] = fit.flux_error * u.nJy
    return table
