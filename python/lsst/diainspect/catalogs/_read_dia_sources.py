"""Reads a DIA source table from a Parquet file, an APDB in SQLite, an astropy table file or a butler."""

from __future__ import annotations

__all__ = ["read_dia_sources"]

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Column, Table
from lsst.daf.butler import Butler, DatasetRef
from lsst.images import SkyProjection

from ..detection import DIA_SOURCE_COLUMNS
from ._read_columns import CatalogError, read_columns
from ._standard_table import standard_table

type Projection = SkyProjection[Any] | Callable[[int, int], SkyProjection[Any]]

_CCD_VISIT_FACTOR = 1000
"""ccdVisitId of the alert production was visit * 1000 + detector."""


def read_dia_sources(
    source: str | os.PathLike[str] | DatasetRef | Table,
    *,
    butler: Butler | None = None,
    projection: Projection | None = None,
    visit: int | None = None,
    detector: int | None = None,
    band: str | None = None,
) -> Table:
    """Read DIA sources that another pipeline found.

    Old column names are replaced by today's (`CURRENT_NAMES`); ``ccdVisitId`` is taken apart into ``visit`` and
    ``detector``. Every column of the DPDD has its type, unit and description.

    Parameters
    ----------
    source : `str`, path-like, `lsst.daf.butler.DatasetRef` or `astropy.table.Table`
        A Parquet file, an APDB in SQLite, an ECSV, CSV or FITS table (each may be gzipped), a dataset that can be read
        as a table, or a table.
    butler : `lsst.daf.butler.Butler`, optional
        Where to read a dataset from.
    projection : `lsst.images.SkyProjection` or callable, optional
        Pixels to sky, from which ``x`` and ``y`` are computed where the table lacks them; of all sources, or a function
        of visit and detector.
    visit, detector : `int`, optional
        Of all sources, for a table that lacks them; of a table that has them, the rows to keep.
    band : `str`, optional
        Band of all sources, for a table that lacks it.

    Returns
    -------
    sources : `astropy.table.Table`
        One row a source. Where the table lacks them, ``isNegative`` is the sign of psfFlux, ``snr`` its ratio to its
        error, and ``diaSourceId`` the number of the row, as the descriptions then say.

    Raises
    ------
    CatalogError
        If the table cannot be read, or lacks visit, detector or position.
    """
    name, columns = _columns_of(source, butler)
    try:
        table = standard_table(columns)
    except ValueError as error:
        raise CatalogError(f"{name}: {error}") from error
    _complete(name, table, visit, detector, band)
    keep = np.ones(len(table), dtype=bool)
    for key, value in (("visit", visit), ("detector", detector)):
        if value is not None:
            keep &= np.asarray(table[key]) == value
    if not keep.all():
        table = table[keep]
    _add_positions(name, table, projection)
    first = [column for column in DIA_SOURCE_COLUMNS if column in table.colnames]
    return table[first + [column for column in table.colnames if column not in set(first)]]


def _columns_of(
    source: str | os.PathLike[str] | DatasetRef | Table, butler: Butler | None
) -> tuple[str, dict[str, Any]]:
    if isinstance(source, Table):
        return "The table", {name: source[name] for name in source.colnames}
    if isinstance(source, DatasetRef):
        if butler is None:
            raise CatalogError(f"{source}: give the butler to read it from.")
        try:
            table = butler.get(source, storageClass="ArrowAstropy")
        except Exception as error:
            # Formatters and storage classes of any package raise what they like.
            raise CatalogError(f"{source}: cannot be read as a table ({error}).") from error
        return str(source), {name: table[name] for name in table.colnames}
    return str(source), read_columns(source)


def _complete(name: str, table: Table, visit: int | None, detector: int | None, band: str | None) -> None:
    n = len(table)
    if "ccdVisitId" in table.colnames:
        packed = np.asarray(table["ccdVisitId"], dtype=np.int64)
        for key, values in zip(("visit", "detector"), np.divmod(packed, _CCD_VISIT_FACTOR), strict=True):
            if key not in table.colnames:
                _add(table, key, values)
    for key, value in (("visit", visit), ("detector", detector)):
        if key not in table.colnames:
            if value is None:
                raise CatalogError(
                    f"{name}: has no column {key} and no ccdVisitId; say which {key} it is of."
                )
            _add(table, key, np.full(n, value))
    if "band" not in table.colnames:
        _add(table, "band", np.full(n, band or "", dtype=f"U{max(1, len(band or ''))}"))
    if "psfFlux" in table.colnames:
        flux = np.asarray(table["psfFlux"], dtype=float)
        if "isNegative" not in table.colnames:
            _add(table, "isNegative", flux < 0, "psfFlux is negative; the table did not say.")
        if "snr" not in table.colnames and "psfFluxErr" in table.colnames:
            with np.errstate(invalid="ignore", divide="ignore"):
                _add(table, "snr", np.abs(flux) / np.asarray(table["psfFluxErr"], dtype=float))
    if "diaSourceId" not in table.colnames:
        _add(table, "diaSourceId", np.arange(1, n + 1), "Number of the row; the table had no identifiers.")


def _add(table: Table, name: str, values: np.ndarray, doc: str | None = None) -> None:
    column = DIA_SOURCE_COLUMNS[name]
    dtype = values.dtype if column.dtype.startswith("U") else column.dtype
    table[name] = Column(values.astype(dtype), unit=column.unit, description=doc or column.doc)


def _add_positions(name: str, table: Table, projection: Projection | None) -> None:
    if {"x", "y"} <= set(table.colnames):
        return
    if not {"ra", "dec"} <= set(table.colnames):
        raise CatalogError(f"{name}: has neither x, y nor ra, dec.")
    if projection is None:
        raise CatalogError(f"{name}: has no x, y; give the projection to compute them from ra, dec.")
    x, y = np.full(len(table), np.nan), np.full(len(table), np.nan)
    keys = np.stack([np.asarray(table[key], dtype=np.int64) for key in ("visit", "detector")], axis=-1)
    for number in np.unique(keys, axis=0):
        to_sky = projection if isinstance(projection, SkyProjection) else projection(*map(int, number))
        rows = np.flatnonzero((keys == number).all(axis=1))
        ra, dec = (np.asarray(table[key], dtype=float)[rows] for key in ("ra", "dec"))
        finite = np.isfinite(ra) & np.isfinite(dec)
        pixel = to_sky.sky_to_pixel(SkyCoord(ra[finite], dec[finite], unit="deg", frame="icrs"))
        x[rows[finite]], y[rows[finite]] = pixel.x, pixel.y
    _add(table, "x", x, "Position in the image's own frame, from ra and dec.")
    _add(table, "y", y, "Position in the image's own frame, from ra and dec.")
