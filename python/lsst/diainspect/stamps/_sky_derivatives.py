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
    x, y = x[finite], y[finite]
    columns = []
    for step_x, step_y in ((0.5, 0.0), (0.0, 0.5)):
        after = sky_projection.pixel_to_sky(x=x + step_x, y=y + step_y)
        before = sky_projection.pixel_to_sky(x=x - step_x, y=y - step_y)
        east, north = before.spherical_offsets_to(after)
        columns.append(np.stack([east.deg, north.deg], axis=-1))
    derivatives[finite] = np.stack(columns, axis=-1)
    return derivatives
