"""What the FITS files of one source and of a detector have in common: names, units, mask bits, tables."""

from __future__ import annotations

__all__ = ["image_hdu", "origin_header", "source_table_hdu"]

import numpy as np
from astropy.io import fits
from astropy.table import Table

from ..masks import MASK_BITS, MASK_PLANES
from ..plots import DetectorLabel
from ..stamps import describe_plane


def origin_header(label: DetectorLabel, method: str) -> fits.Header:
    """Return a header that says where stamps come from."""
    header = fits.Header()
    header["INSTRUME"] = (label.instrument, "Instrument")
    header["VISIT"] = (label.visit, "Visit")
    header["DETECTOR"] = (label.detector, "Detector")
    header["BAND"] = (label.band, "Band")
    header["METHOD"] = (method, "Subtraction method")
    return header


def image_hdu(pixels: np.ndarray, name: str, header: fits.Header | None = None) -> fits.ImageHDU:
    """Make the extension of a plane or model: its name, unit and meaning, and the bits of a mask.

    Parameters
    ----------
    pixels : `numpy.ndarray`, (..., size, size)
        Pixels of one source or many.
    name : `str`
        Plane or model.
    header : `astropy.io.fits.Header`, optional
        Cards to begin with.
    """
    hdu = fits.ImageHDU(np.ascontiguousarray(pixels), header=header, name=name)
    unit, doc = describe_plane(name) or (None, "Sum 1; centred on pixel size // 2.")
    if unit is not None:
        hdu.header["BUNIT"] = unit.to_string("fits")
    hdu.header.add_comment(doc)
    if name == "mask":
        for plane in MASK_PLANES:
            # Names of more than eight characters: the HIERARCH convention.
            hdu.header[f"HIERARCH MP_{plane.name}"] = (MASK_BITS[plane.name], "bit")
    return hdu


def source_table_hdu(sources: Table, name: str) -> fits.BinTableHDU:
    """Make the extension of the sources' columns, with their units."""
    table = Table(
        {column: sources[column] for column in sources.colnames if sources[column].dtype.kind != "O"},
        copy=True,
    )
    # Meta data of the butler are not for FITS headers.
    table.meta.clear()
    return fits.BinTableHDU(table, name=name)
