"""One source's stamp as an image of lsst.images, with coordinates on the sky."""

from __future__ import annotations

__all__ = ["stamp_image", "stamp_wcs"]

import astropy.units as u
import astropy.wcs
import numpy as np
from astropy.table import Row
from lsst.images import Box, GeneralFrame, Mask, MaskedImage, SkyProjection
from lsst.images import Image as LsstImage

from ..masks import MASK_BITS, MASK_PLANES, make_mask_schema
from ._stamp_set import StampSet


def stamp_wcs(source: Row, *, of_stamp: bool = False) -> astropy.wcs.WCS | None:
    """Return the tangent projection about a source that its local derivatives give.

    Across a stamp the distortion of a detector amounts to less than a milliarcsecond.

    Parameters
    ----------
    source : `astropy.table.Row`
        Row of a stamp set's sources with ``ra``, ``dec``, ``x``, ``y``, ``x0``, ``y0`` and ``pixelToSky``.
    of_stamp : `bool`, optional
        Whether pixels count from the stamp's lower-left pixel, or from the image's.

    Returns
    -------
    wcs : `astropy.wcs.WCS` or `None`
        Projection; None if the source has no position on the sky.
    """
    names = {"ra", "dec", "x", "y", "x0", "y0", "pixelToSky"}
    if not names <= set(source.colnames):
        return None
    ra, dec, x, y = (float(source[name]) for name in ("ra", "dec", "x", "y"))
    derivatives = np.asarray(source["pixelToSky"], dtype=float)
    if not np.isfinite([ra, dec, x, y, *derivatives.ravel()]).all() or np.linalg.det(derivatives) == 0:
        return None
    wcs = astropy.wcs.WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [ra, dec]
    origin = (int(source["x0"]), int(source["y0"])) if of_stamp else (0, 0)
    # FITS counts from 1.
    wcs.wcs.crpix = [x - origin[0] + 1.0, y - origin[1] + 1.0]
    wcs.wcs.cd = derivatives
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def stamp_image(stamps: StampSet, row: int, plane: str = "difference") -> MaskedImage:
    """Return the stamp of one source as an image with mask, variance and projection.

    Parameters
    ----------
    stamps : `StampSet`
        Stamps.
    row : `int`
        Row of the source.
    plane : `str`, optional
        Plane to show, an image in nJy.

    Returns
    -------
    image : `lsst.images.MaskedImage`
        Image in the coordinates of the image that the stamp was cut from. The mask is that of the difference, all clear
        if the stamps have none; the variance is NaN if the stamps have none of this plane.

    Raises
    ------
    KeyError
        If the stamps lack the plane.
    """
    if plane not in stamps.planes:
        raise KeyError(f"The stamps have no plane {plane!r}; they have {', '.join(stamps.planes)}.")
    source = stamps.sources[row]
    size, x0, y0 = stamps.size, int(source["x0"]), int(source["y0"])
    box = Box.factory[y0 : y0 + size, x0 : x0 + size]
    wcs = stamp_wcs(source)
    projection = None if wcs is None else SkyProjection.from_fits_wcs(wcs, GeneralFrame(unit=u.pix))
    variance = stamps.planes.get(f"{plane}Variance")
    if variance is None:
        variance = np.full(stamps.planes[plane].shape, np.nan, dtype=np.float32)
    mask = Mask(0, schema=make_mask_schema(plane.name for plane in MASK_PLANES), bbox=box)
    if "mask" in stamps.planes:
        words = stamps.planes["mask"][row]
        for name, bit in MASK_BITS.items():
            mask.set(name, (words >> np.uint32(bit)) & np.uint32(1) != 0)
    unit = u.dimensionless_unscaled if plane.endswith("score") else u.nJy
    return MaskedImage(
        LsstImage(np.asarray(stamps.planes[plane][row]), bbox=box, unit=unit, sky_projection=projection),
        mask=mask,
        variance=LsstImage(np.asarray(variance[row]), bbox=box, unit=unit**2, sky_projection=projection),
        sky_projection=projection,
    )
