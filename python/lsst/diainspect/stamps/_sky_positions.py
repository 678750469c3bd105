"""Positions on the sky in place of detected sources: which of them an image has, and where."""

from __future__ import annotations

__all__ = ["sources_at_positions"]

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Column, Table
from lsst.images import Box, SkyProjection

from ._gather import stamp_origin

_HEMISPHERE = 5.0
"""Positions farther than this from the image's centre are not projected [deg]: far off, projections repeat."""


def sources_at_positions(positions: Table, sky_projection: SkyProjection, bounds: Box, size: int) -> Table:
    """Make the source table of the positions whose stamps share a pixel with an image.

    Parameters
    ----------
    positions : `astropy.table.Table`
        Rows with ``ra`` and ``dec`` [deg unless the column says], and ``diaSourceId`` or not: then the row numbers
        from 1 are the identifiers. Other columns are kept.
    sky_projection : `lsst.images.SkyProjection`
        Pixels to sky.
    bounds : `lsst.images.Box`
        Pixels of the image.
    size : `int`
        Side of the stamps [pixel].

    Returns
    -------
    sources : `astropy.table.Table`
        The positions on the image with ``diaSourceId``, ``x`` and ``y`` [pixel], in the order of the table. A position
        beyond the edge counts if its stamp reaches the image.

    Raises
    ------
    ValueError
        If there is no ``ra`` or ``dec``, a unit is not an angle, or identifiers repeat.
    """
    missing = {"ra", "dec"} - set(positions.colnames)
    if missing:
        raise ValueError(
            f"The table of positions lacks {sorted(missing)} [deg]; it has {', '.join(positions.colnames)}."
        )
    ra, dec = (_degrees(positions, name) for name in ("ra", "dec"))
    table = positions.copy()
    if "diaSourceId" not in table.colnames:
        table.add_column(
            Column(np.arange(1, len(table) + 1, dtype=np.int64), description="Row of the position, from 1."),
            name="diaSourceId",
            index=0,
        )
    identifiers = np.asarray(table["diaSourceId"])
    if len(np.unique(identifiers)) < len(identifiers):
        raise ValueError("The table of positions has a diaSourceId more than once: each names a stamp.")
    table["ra"], table["dec"] = Column(ra, unit=u.deg), Column(dec, unit=u.deg)

    near = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90.0)
    centre = sky_projection.pixel_to_sky(
        x=0.5 * (bounds.x.start + bounds.x.stop - 1), y=0.5 * (bounds.y.start + bounds.y.stop - 1)
    )
    sky = SkyCoord(np.where(near, ra, 0.0), np.where(near, dec, 0.0), unit=u.deg)
    near &= centre.separation(sky).deg < _HEMISPHERE
    x, y = (np.full(len(table), np.nan) for _ in range(2))
    if near.any():
        pixels = sky_projection.sky_to_pixel(sky[near])
        x[near], y[near] = np.asarray(pixels.x), np.asarray(pixels.y)
    table["x"] = Column(x, unit=u.pix, description="x of the position.")
    table["y"] = Column(y, unit=u.pix, description="y of the position.")
    x0, y0 = stamp_origin(x, y, size)
    shares = (x0 < bounds.x.stop) & (x0 + size > bounds.x.start)
    shares &= (y0 < bounds.y.stop) & (y0 + size > bounds.y.start)
    return table[shares]


def _degrees(positions: Table, name: str) -> np.ndarray:
    column = positions[name]
    values = np.asarray(column.filled(np.nan) if hasattr(column, "filled") else column, dtype=float)
    if column.unit is None:
        return values
    try:
        return np.asarray((values * column.unit).to_value(u.deg))
    except u.UnitConversionError as error:
        raise ValueError(f"{name} of the positions is in {column.unit}, which is not an angle.") from error
