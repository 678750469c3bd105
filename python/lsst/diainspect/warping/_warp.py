"""Brings an image to another pixel grid by spline interpolation of its surface brightness.

The value at each output pixel is the input interpolated at its position times the area ratio, so that fluxes are kept.
Its variance is (area ratio)^2 sum_k eta_k^2 v_k with the weights eta of the interpolation. Well-sampled images keep
their PSF P in this: that of the result is P(J d) |J| with the local Jacobian J.
"""

from __future__ import annotations

__all__ = ["NoCommonSkyError", "WarpedImage", "warp_image", "warp_psf"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage
from lsst.images import Box

from ..psf import PixelBasisPsf, PolynomialField
from ._cardinal_spline import CardinalSpline
from ._noise_power import NoisePower
from ._pixel_map import PixelMap

_ORDER = 5
"""Order of the splines: for a Gaussian star of 3 pixels FWHM moved by half a pixel the largest error is 0.25 % of the
peak, with cubic splines 1.1 %, with linear ones 14 %; the correlation of neighbours is 0.18, 0.26 and 0.50."""

_MASK_GROWTH = 2
"""Pixels around a bad one whose interpolated values it touches by more than 1 % of its own error."""

_LEAST_COVERAGE = 0.02
"""Least fraction of the output that must be on the input."""


class NoCommonSkyError(ValueError):
    """Two images have no sky in common."""


@dataclass(frozen=True)
class WarpedImage:
    """An image on another pixel grid.

    Parameters
    ----------
    image, variance : `numpy.ndarray`, (height, width), float32
        Pixels; the image is NaN and the variance its median where there is no input.
    planes : `dict` [`str`, `numpy.ndarray`]
        Masks by name; bad areas are grown by what the interpolation mixes.
    no_data : `numpy.ndarray`, (height, width), bool
        Pixels without input.
    noise_power : `NoisePower`
        Correlation of the noise, were the input's white.
    largest_shift : `float`
        Largest distance by which a pixel moved [pixel].
    scale : `float`
        Input pixels on a side of an output pixel.
    pixel_map : `PixelMap`
        From output to input array coordinates.
    """

    image: np.ndarray
    variance: np.ndarray
    planes: dict[str, np.ndarray]
    no_data: np.ndarray
    noise_power: NoisePower
    largest_shift: float
    scale: float
    pixel_map: PixelMap


def warp_image(
    image: np.ndarray,
    variance: np.ndarray,
    planes: Mapping[str, np.ndarray],
    input_wcs: Any,
    output_wcs: Any,
    shape: tuple[int, int],
    *,
    order: int = _ORDER,
) -> WarpedImage:
    """Warp an image.

    Parameters
    ----------
    image, variance : `numpy.ndarray`, (input height, input width)
        Pixels without NaN: bad ones filled smoothly, for interpolation spreads what they hold.
    planes : mapping [`str`, `numpy.ndarray`]
        Masks of the input by name, bool.
    input_wcs, output_wcs : `astropy.wcs.wcsapi.BaseHighLevelWCS`
        Coordinate systems of the two arrays.
    shape : `tuple` [`int`, `int`]
        Height and width of the output.
    order : `int`, optional
        Order of the splines.

    Raises
    ------
    NoCommonSkyError
        If the input covers almost nothing of the output.
    ImportError
        If reproject is not installed.
    """
    try:
        from reproject import reproject_interp  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            "Warping a template needs reproject: pip install 'lsst-diainspect[warp]', or give a template on the "
            "science image's pixel grid."
        ) from error
    spline = CardinalSpline(order)
    try:
        pixel_map = PixelMap(output_wcs, input_wcs, shape)
    except ValueError as error:
        raise NoCommonSkyError(str(error)) from error
    x, y = pixel_map.grid()
    height, width = image.shape
    inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    if inside.mean() < _LEAST_COVERAGE:
        raise NoCommonSkyError(
            f"Only {inside.mean():.1%} of the {shape[1]} x {shape[0]} pixels lie on the other image; at least "
            f"{_LEAST_COVERAGE:.0%} must."
        )
    area = pixel_map.area()
    warped, _ = reproject_interp(
        (np.asarray(image, dtype=float), input_wcs),
        output_wcs,
        shape_out=shape,
        order=order,
        roundtrip_coords=False,
    )
    no_data = ~inside | ~np.isfinite(warped)
    spread = scipy.ndimage.map_coordinates(
        np.asarray(variance, dtype=float), [y, x], order=1, mode="nearest", prefilter=False
    )
    spread *= spline.variance_factor(x) * spline.variance_factor(y) * area**2
    spread[no_data] = np.median(spread[~no_data])
    return WarpedImage(
        image=np.where(no_data, np.nan, warped * area).astype(np.float32),
        variance=spread.astype(np.float32),
        planes={name: _warp_mask(mask, x, y) for name, mask in planes.items()},
        no_data=no_data,
        noise_power=NoisePower.from_warp(pixel_map, Box.from_shape(shape), spline),
        largest_shift=pixel_map.largest_shift(),
        scale=float(np.sqrt(np.median(area))),
        pixel_map=pixel_map,
    )


def _warp_mask(mask: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if not mask.any():
        return np.zeros(x.shape, dtype=bool)
    grown = scipy.ndimage.binary_dilation(mask, np.ones((3, 3), bool), iterations=_MASK_GROWTH)
    return scipy.ndimage.map_coordinates(grown.astype(np.uint8), [y, x], order=0, mode="constant") > 0


def warp_psf(
    psf: PixelBasisPsf,
    pixel_map: PixelMap,
    bounds: Box,
    *,
    size: int | None = None,
    order: int = _ORDER,
) -> PixelBasisPsf:
    """Return the PSF of a warped image.

    Parameters
    ----------
    psf : `PixelBasisPsf`
        PSF of the input.
    pixel_map : `PixelMap`
        From output to input array coordinates.
    bounds : `lsst.images.Box`
        Box of the output, of the map's shape.
    size : `int`, optional
        Side of the images, odd [pixel]; what holds the input's images when omitted.
    order : `int`, optional
        Order of the splines.
    """
    x, y = PolynomialField(bounds, psf.field.order).sample_grid(psf.field.order + 2)
    array_x, array_y = x - bounds.x.start, y - bounds.y.start
    there_x, there_y = pixel_map(array_x, array_y)
    jacobian = pixel_map.jacobian(array_x, array_y)
    scale = float(np.sqrt(np.abs(np.linalg.det(jacobian)).mean()))
    if size is None:
        size = 2 * max(5, round(0.5 * (psf.size - 1) / scale)) + 1
    images = psf.evaluate(
        np.clip(there_x, 0, psf.bounds.x.size - 1) + psf.bounds.x.start,
        np.clip(there_y, 0, psf.bounds.y.size - 1) + psf.bounds.y.start,
    )
    grid = np.arange(size) - size // 2
    offset = np.stack([a.ravel() for a in np.meshgrid(grid, grid)])
    warped = []
    for image, matrix in zip(images, jacobian, strict=True):
        dx, dy = matrix @ offset
        centre = psf.size // 2
        values = scipy.ndimage.map_coordinates(
            image, [dy + centre, dx + centre], order=order, mode="constant"
        )
        warped.append(values.reshape(size, size))
    return PixelBasisPsf.from_images(np.stack(warped), x, y, bounds, order=psf.field.order)
