"""How the sky moves when a pixel position does: local derivatives of a projection."""

from __future__ import annotations

__all__ = ["sky_derivatives"]

import numpy as np
from lsst.images import SkyProjection


def sky_derivatives(sky_projection: SkyProjection, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Differentiate sky coordinates with respect to pixel coordinates, across one pixel.

    Parameters
    ----------
    sky_projection : `lsst.images.SkyProjection`
        Pixels to sky.
    x, y : `numpy.ndarray`, (N,)
        Positions [pixel].

    Returns
    -------
    derivatives : `numpy.ndarray`, (N, 2, 2)
        Rows are (ra cos(dec), dec), columns (x, y) [deg / pixel]; NaN at positions that are not finite.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    derivatives = np.full((len(x), 2, 2), np.nan)
    # AST makes something of NaN, and the coordinates refuse that.
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.any():
        return derivatives
    x, y, n = x[finite], y[finite], np.count_nonzero(finite)
    step, zero = np.full(n, 0.5), np.zeros(n)
    # Before and after along x, and the same along y, in one call.
    steps_x, steps_y = np.stack([-step, step, zero, zero]), np.stack([zero, zero, -step, step])
    sky = sky_projection.pixel_to_sky(x=(x + steps_x).ravel(), y=(y + steps_y).ravel())
    ra, dec = sky.ra.rad.reshape(4, n), sky.dec.rad.reshape(4, n)
    for axis in range(2):
        derivatives[finite, :, axis] = np.degrees(
            _offset(ra[2 * axis], dec[2 * axis], ra[2 * axis + 1], dec[2 * axis + 1])
        )
    return derivatives


def _offset(ra: np.ndarray, dec: np.ndarray, other_ra: np.ndarray, other_dec: np.ndarray) -> np.ndarray:
    """Return longitude and latitude (N, 2) of the others where (ra, dec) is the origin and north the same [radian].

    As ``SkyCoord.spherical_offsets_to`` does, which takes longer than all else.
    """
    away = other_ra - ra
    fall = 2.0 * np.sin(0.5 * away) ** 2
    across = np.cos(dec) * np.cos(other_dec)
    longitude = np.arctan2(np.cos(other_dec) * np.sin(away), np.cos(other_dec - dec) - across * fall)
    latitude = np.arcsin(np.sin(other_dec - dec) + np.cos(other_dec) * np.sin(dec) * fall)
    return np.stack([longitude, latitude], axis=-1)
