"""Reads a PSF image given as a FITS file, and checks that it is one."""

from __future__ import annotations

__all__ = ["DEFAULT_PSF_SIZE", "read_psf"]

import logging
import os

import numpy as np
from lsst.images import Box

from lsst.diainspect.psf import PixelBasisPsf

from ._fits_file import FitsPlane, IngestError, read_plane

_LOG = logging.getLogger(__name__)

DEFAULT_PSF_SIZE = 51
"""Twelve widths of a PSF of 4 pixels. Cost grows with the area, and the light beyond is below the noise of all
but saturated stars."""

_CENTROID_RADIUS = 5
"""Half side of the window around the peak that defines the centre: noise in far wings must not move it [pixel]."""

_SCALE_KEYWORDS = ("PIXELSCL", "PIXSCALE")
_SCALE_TOLERANCE = 0.03
"""Relative difference of PSF and image pixel scales that is still a matter of rounding."""

_OVERSAMPLING_KEYWORDS = ("OVERSAMP", "DET_SAMP")


def read_psf(
    source: str | os.PathLike[str],
    bounds: Box,
    *,
    size: int = DEFAULT_PSF_SIZE,
    pixel_scale: float | None = None,
) -> PixelBasisPsf:
    """Read the PSF of an image, the same everywhere.

    The image is cut to ``size`` and normalised to unit sum. If its centroid is more than half a pixel off the
    central pixel it is moved by whole pixels; a sub-pixel offset is kept as it is.

    Parameters
    ----------
    source : `str` or path-like
        FITS file with a square image of odd side, in pixels of the science image.
    bounds : `lsst.images.Box`
        Region in which the PSF is valid.
    size : `int`, optional
        Largest side of the PSF kept, odd [pixel]; a smaller image stays as it is.
    pixel_scale : `float`, optional
        Pixel scale of the image [arcsec]; checked against the header of the PSF where it has one.

    Raises
    ------
    IngestError
        If the file is not a usable PSF.
    """
    if size < 3 or size % 2 == 0:
        raise IngestError(f"PSF size must be odd and at least 3, got {size}.")
    plane = read_plane(source)
    image, name = plane.array, plane.name
    height, width = image.shape
    if height != width:
        raise IngestError(f"{name}: a PSF image must be square, got {width} x {height} pixels.")
    if width % 2 == 0:
        raise IngestError(
            f"{name}: a PSF image must have an odd side so that its centre is a pixel, got {width} x {height}; "
            f"resample it."
        )
    if not np.all(np.isfinite(image)):
        raise IngestError(
            f"{name}: the PSF has {int((~np.isfinite(image)).sum())} pixels that are not finite."
        )
    if not image.sum() > 0 or not image.max() > 0:
        raise IngestError(f"{name}: the PSF has no positive sum.")
    _check_scale(plane, pixel_scale)
    image = _centre(image, name)
    total = image.sum()
    if width > size:
        cut = (width - size) // 2
        image = image[cut : cut + size, cut : cut + size]
        if not image.sum() > 0:
            raise IngestError(f"{name}: the central {size} x {size} pixels of the PSF have no positive sum.")
        _LOG.info(
            "%s: %d x %d pixels cut to %d, which hold %.2f %% of the light.",
            name,
            width,
            width,
            size,
            100.0 * image.sum() / total,
        )
    return PixelBasisPsf.from_image(image / image.sum(), bounds)


def _centre(image: np.ndarray, name: str) -> np.ndarray:
    """Move the PSF by whole pixels until its centroid is in the central pixel."""
    middle = image.shape[0] // 2
    peak_y, peak_x = (int(index) for index in np.unravel_index(image.argmax(), image.shape))
    rows = slice(max(peak_y - _CENTROID_RADIUS, 0), peak_y + _CENTROID_RADIUS + 1)
    columns = slice(max(peak_x - _CENTROID_RADIUS, 0), peak_x + _CENTROID_RADIUS + 1)
    window = image[rows, columns]
    y, x = np.mgrid[
        rows.start : rows.start + window.shape[0], columns.start : columns.start + window.shape[1]
    ]
    offset_x = float((window * x).sum() / window.sum()) - middle
    offset_y = float((window * y).sum() / window.sum()) - middle
    shift_x, shift_y = round(offset_x), round(offset_y)
    if abs(offset_x) <= 0.5 and abs(offset_y) <= 0.5:
        return image
    if max(abs(shift_x), abs(shift_y)) > middle // 2:
        raise IngestError(
            f"{name}: the PSF is {offset_x:.1f}, {offset_y:.1f} pixels off the centre of its image; cut it out again."
        )
    _LOG.warning(
        "%s: the PSF is %.2f, %.2f pixels off its central pixel; moved by %d, %d.",
        name,
        offset_x,
        offset_y,
        -shift_x,
        -shift_y,
    )
    pad = max(abs(shift_x), abs(shift_y))
    padded = np.pad(image, pad)
    side = image.shape[0]
    return padded[pad + shift_y : pad + shift_y + side, pad + shift_x : pad + shift_x + side]


def _check_scale(plane: FitsPlane, pixel_scale: float | None) -> None:
    """Refuse a PSF whose header says that its pixels are not those of the image."""
    for keyword in _OVERSAMPLING_KEYWORDS:
        value = plane.header.get(keyword)
        if isinstance(value, int | float) and value != 1 and not _has_image_scale(plane, pixel_scale):
            raise IngestError(
                f"{plane.name}: the PSF is oversampled ({keyword} = {value}); give it in pixels of the image."
            )
    if pixel_scale is None:
        return
    for keyword in _SCALE_KEYWORDS:
        value = plane.header.get(keyword)
        if isinstance(value, int | float) and abs(value / pixel_scale - 1.0) > _SCALE_TOLERANCE:
            raise IngestError(
                f"{plane.name}: the PSF has {value} arcsec pixels ({keyword}), the image {pixel_scale:.5g} arcsec; "
                f"resample the PSF to the image."
            )


def _has_image_scale(plane: FitsPlane, pixel_scale: float | None) -> bool:
    """Whether the header gives a pixel scale equal to the image's: binned after it was computed oversampled."""
    if pixel_scale is None:
        return False
    values = [plane.header.get(keyword) for keyword in _SCALE_KEYWORDS]
    return any(isinstance(v, int | float) and abs(v / pixel_scale - 1.0) <= _SCALE_TOLERANCE for v in values)
