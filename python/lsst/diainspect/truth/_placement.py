"""Gives every object of a truth table both pixels and a position on the sky."""

from __future__ import annotations

__all__ = ["place_truth"]

from typing import Any

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Column, Table
from lsst.images import SkyProjection


def place_truth(truth: Table, projection: SkyProjection[Any]) -> Table:
    """Return truth in which every object has both pixels and sky; pixels are believed where it has both."""
    truth = truth.copy()
    x, y = (np.asarray(truth[name], dtype=float).copy() for name in ("x", "y"))
    ra, dec = (np.asarray(truth[name], dtype=float).copy() for name in ("ra", "dec"))
    on_sky = ~(np.isfinite(x) & np.isfinite(y)) & np.isfinite(ra) & np.isfinite(dec)
    if on_sky.any():
        pixel = projection.sky_to_pixel(SkyCoord(ra[on_sky], dec[on_sky], unit="deg", frame="icrs"))
        x[on_sky], y[on_sky] = pixel.x, pixel.y
    in_pixels = ~on_sky & np.isfinite(x) & np.isfinite(y)
    if in_pixels.any():
        sky = projection.pixel_to_sky(x=x[in_pixels], y=y[in_pixels])
        ra[in_pixels], dec[in_pixels] = sky.ra.deg, sky.dec.deg
    for name, values in (("x", x), ("y", y), ("ra", ra), ("dec", dec)):
        truth[name] = Column(values, unit=truth[name].unit, description=truth[name].description)
    return truth
