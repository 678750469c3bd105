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
    # Along x and along y together.
    steps_x, steps_y = np.stack([step, zero]), np.stack([zero, step])
    before, after = (
        sky_projection.pixel_to_sky(x=(x + sign * steps_x).ravel(), y=(y + sign * steps_y).ravel())
        for sign in (-1.0, 1.0)
    )
    offsets = np.stack([offset.deg.reshape(2, n) for offset in before.spherical_offsets_to(after)])
    derivatives[finite] = offsets.transpose(2, 0, 1)
    return derivatives
