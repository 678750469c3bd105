"""A template on another pixel grid brought to that of the science image, with all its planes."""

from __future__ import annotations

__all__ = ["WarpedTemplate", "grid_distance", "warp_template"]

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.wcs.utils import pixel_to_pixel
from lsst.images import Box

from lsst.diainspect.psf import PixelBasisPsf
from lsst.diainspect.subtraction import fill_bad_pixels
from lsst.diainspect.warping import NoCommonSkyError, NoisePower, warp_image, warp_psf

from ._fits_file import IngestError

_INTERPOLATED_AWAY = ("NO_DATA", "SATURATED", "BAD", "COSMIC_RAY")
"""Planes whose pixels are filled from their neighbours before interpolation spreads them."""


@dataclass(frozen=True)
class WarpedTemplate:
    """Planes on the science grid.

    Parameters
    ----------
    pixels, variance : `numpy.ndarray`, (height, width), float32
        Image [nJy] and variance [nJy^2].
    planes : `dict` [`str`, `numpy.ndarray`]
        Mask planes by name.
    psf : `PixelBasisPsf`
        PSF on the science grid.
    noise_power : `NoisePower`
        Correlation of the noise that the warp made.
    metadata : `dict`
        How far and by how much it was warped.
    """

    pixels: np.ndarray
    variance: np.ndarray
    planes: dict[str, np.ndarray]
    psf: PixelBasisPsf
    noise_power: NoisePower
    metadata: dict[str, Any]


def grid_distance(template_wcs: Any, science_wcs: Any, shape: tuple[int, int]) -> float:
    """Return how far apart the pixels of two grids are at most, at the corners and the centre [pixel].

    Infinite where the coordinate systems have no sky in common.
    """
    height, width = shape
    x = np.array([0.0, width - 1.0, 0.0, width - 1.0, 0.5 * (width - 1)])
    y = np.array([0.0, 0.0, height - 1.0, height - 1.0, 0.5 * (height - 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            there_x, there_y = pixel_to_pixel(science_wcs, template_wcs, x, y)
        except Exception:
            # Projections raise errors of many kinds for points that are not on them.
            return float("inf")
    distance = np.hypot(there_x - x, there_y - y)
    return float(distance.max()) if np.all(np.isfinite(distance)) else float("inf")


def warp_template(
    name: str,
    pixels: np.ndarray,
    variance: np.ndarray,
    planes: Mapping[str, np.ndarray],
    psf: PixelBasisPsf,
    template_wcs: Any,
    science_wcs: Any,
    bounds: Box,
    *,
    psf_size: int,
) -> WarpedTemplate:
    """Warp a template.

    Parameters
    ----------
    name : `str`
        What to call it in messages.
    pixels, variance : `numpy.ndarray`, (template height, template width)
        Image, NaN where there are no data, and variance.
    planes : mapping [`str`, `numpy.ndarray`]
        Mask planes of the template.
    psf : `PixelBasisPsf`
        PSF of the template.
    template_wcs, science_wcs : `astropy.wcs.wcsapi.BaseHighLevelWCS`
        Coordinate systems of the two arrays.
    bounds : `lsst.images.Box`
        Box of the science image.
    psf_size : `int`
        Largest side of the PSF images, odd [pixel].

    Raises
    ------
    IngestError
        If the template covers almost nothing of the science image.
    """
    shape = (bounds.y.size, bounds.x.size)
    bad = ~np.isfinite(pixels)
    for plane in _INTERPOLATED_AWAY:
        if plane in planes:
            bad |= planes[plane]
    filled = fill_bad_pixels(np.asarray(pixels, np.float32), bad)
    try:
        warped = warp_image(filled, variance, planes, template_wcs, science_wcs, shape)
    except NoCommonSkyError as error:
        raise IngestError(
            f"{name}: its coordinates do not overlap with the science image. {error}"
        ) from error
    carried = dict(warped.planes)
    carried["NO_DATA"] = carried.get("NO_DATA", np.zeros(shape, bool)) | warped.no_data
    warped_psf = warp_psf(psf, warped.pixel_map, bounds)
    return WarpedTemplate(
        pixels=np.where(carried["NO_DATA"], np.nan, warped.image).astype(np.float32),
        variance=warped.variance,
        planes=carried,
        psf=warped_psf.resized(min(psf_size, warped_psf.size)),
        noise_power=warped.noise_power,
        metadata={
            "warped": True,
            "warpLargestShift": warped.largest_shift,
            "warpPixelScale": warped.scale,
            "warpCoverage": float(1.0 - warped.no_data.mean()),
            "warpVarianceFactor": warped.noise_power.variance_factor,
            "warpNeighbourCorrelation": warped.noise_power.neighbour_correlation,
        },
    )
