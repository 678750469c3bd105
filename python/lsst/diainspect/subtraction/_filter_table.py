"""PSFs and filters of a subtraction as a table, one row an image: the dataset from which stamps take theirs."""

from __future__ import annotations

__all__ = ["filters_from_table", "filters_to_table"]

from collections.abc import Mapping

import astropy.units as u
import numpy as np
from astropy.table import Column, Table
from lsst.images import Box

from ..psf import PixelBasis, PolynomialField


def filters_to_table(filters: Mapping[str, PixelBasis]) -> Table:
    """Write spatially varying images to a table.

    Parameters
    ----------
    filters : mapping [`str`, `PixelBasis`]
        Filters by name, all over the same bounds.

    Returns
    -------
    table : `astropy.table.Table`
        ``model``, ``term``, ``size`` (side of the image without its padding), ``image`` (padded to one size),
        ``order`` of the spatial polynomial and the box ``xMin``, ``yMin``, ``width``, ``height`` that maps to
        [-1, 1].
    """
    largest = max(basis.size for basis in filters.values())
    rows = []
    for name, basis in filters.items():
        pad = (largest - basis.size) // 2
        padded = np.pad(basis.basis, ((0, 0), (pad, pad), (pad, pad))).astype(np.float32)
        box = basis.bounds
        geometry = (basis.field.order, box.x.start, box.y.start, box.x.size, box.y.size)
        rows += [(name, term, basis.size, image, *geometry) for term, image in enumerate(padded)]
    columns = list(zip(*rows, strict=True))
    table = Table()
    table["model"] = Column(np.array(columns[0], dtype="U32"), description="Name of the PSF or filter.")
    table["term"] = Column(np.array(columns[1], dtype=np.int32), description="Term of the polynomial.")
    table["size"] = Column(
        np.array(columns[2], dtype=np.int32), unit=u.pix, description="Side without padding."
    )
    table["image"] = Column(np.stack(columns[3]), description="Image that multiplies the term.")
    for name, values in zip(("order", "xMin", "yMin", "width", "height"), columns[4:], strict=True):
        table[name] = Column(np.array(values, dtype=np.int32), description="Geometry of the polynomial.")
    return table


def filters_from_table(table: Table) -> dict[str, PixelBasis]:
    """Read what `filters_to_table` wrote."""
    filters = {}
    names = np.asarray(table["model"]).astype(str)
    for name in dict.fromkeys(names):
        rows = table[names == name]
        rows.sort("term")
        first = rows[0]
        size = int(first["size"])
        cut = (rows["image"].shape[-1] - size) // 2
        x_min, y_min = int(first["xMin"]), int(first["yMin"])
        bounds = Box.factory[y_min : y_min + int(first["height"]), x_min : x_min + int(first["width"])]
        images = np.asarray(rows["image"], dtype=float)[:, cut : cut + size, cut : cut + size]
        filters[str(name)] = PixelBasis(images, PolynomialField(bounds, int(first["order"])))
    return filters
