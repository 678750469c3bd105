"""Cutting the stamp set of a source table from images."""

from __future__ import annotations

__all__ = ["cut_stamps"]

from collections.abc import Mapping

import astropy.units as u
import numpy as np
from astropy.table import Column, Table
from lsst.images import Box, SkyProjection

from ..masks import MASK_BITS
from ..psf import PixelBasis
from ._gather import gather_stamps, stamp_origin
from ._sky_derivatives import sky_derivatives
from ._stamp_model import StampModel
from ._stamp_set import StampSet


def cut_stamps(
    sources: Table,
    images: Mapping[str, tuple[np.ndarray, Box]],
    models: Mapping[str, PixelBasis],
    sky_projection: SkyProjection,
    size: int,
    *,
    ready: Mapping[str, np.ndarray] | None = None,
) -> StampSet:
    """Cut stamps around sources.

    Parameters
    ----------
    sources : `astropy.table.Table`
        Rows with ``x`` and ``y`` [pixel]; all columns are kept.
    images : mapping [`str`, `tuple` [`numpy.ndarray`, `lsst.images.Box`]]
        Planes to cut, by their names in `PLANES`, each with its bounding box.
    models : mapping [`str`, `PixelBasis`]
        PSFs and filters to take at the sources, by their names in `MODELS`.
    sky_projection : `lsst.images.SkyProjection`
        Pixels to sky, for the local derivatives.
    size : `int`
        Side of the stamps [pixel]; odd or even. The source's pixel is size // 2.
    ready : mapping [`str`, `numpy.ndarray`], optional
        Further planes that are stamps already, (N, size, size), from the pixels that `stamp_origin` gives.

    Returns
    -------
    stamps : `StampSet`
        One stamp a row, also for sources at or off the edge: pixels off an image are NaN (OFF_IMAGE in the mask), and
        ``stamp_flag_edge`` says where there are such.

    Raises
    ------
    ValueError
        If the size is not positive or the table lacks a position.
    """
    if size <= 0:
        raise ValueError(f"Stamp size must be positive, got {size} (config field stampSize).")
    missing = {"x", "y"} - set(sources.colnames)
    if missing:
        raise ValueError(f"The source table lacks the columns {sorted(missing)}.")
    x, y = (
        np.where(np.isfinite(position), position, np.nan)
        for position in (np.asarray(sources[name], dtype=float) for name in ("x", "y"))
    )
    x0, y0 = stamp_origin(x, y, size)
    planes = dict(ready or {})
    off_image = 1 << MASK_BITS["OFF_IMAGE"]
    edge = np.zeros(len(sources), dtype=bool)
    if "mask" in planes:
        edge |= ((planes["mask"] & off_image) != 0).any(axis=(1, 2))
    for name, (array, box) in images.items():
        fill = off_image if name == "mask" else np.nan
        planes[name] = gather_stamps(array, x0 - box.x.start, y0 - box.y.start, size, fill)
        edge |= (x0 < box.x.start) | (x0 + size > box.x.stop) | (y0 < box.y.start) | (y0 + size > box.y.stop)
    table = sources.copy()
    table["x0"] = Column(x0, unit=u.pix, description="x of the stamp's lower-left pixel.")
    table["y0"] = Column(y0, unit=u.pix, description="y of the stamp's lower-left pixel.")
    table["stamp_flag_edge"] = Column(
        edge, description="The stamp reaches beyond the edge of an image; pixels there are NaN."
    )
    table["pixelToSky"] = Column(
        sky_derivatives(sky_projection, x, y),
        unit=u.deg / u.pix,
        description="Derivatives of (ra cos(dec), dec) by (x, y).",
    )
    return StampSet(
        table, planes, {name: StampModel.from_pixel_basis(basis, x, y) for name, basis in models.items()}
    )
