"""Rubin's alerts: the diaSource record and three cutouts with variance and PSF.

Facts about the cutouts of schemas 7 to 9, seen in the pixels: UNCERT is the variance; PSFs have sizes of their own;
the header's WCS (which lacks CTYPE) is the local linear one about the source, in FITS's count from 1, so that the
source lies on pixel CRPIX - 1; CUTMINX and CUTMINY are one less than the coordinates of the first pixel.
"""

from __future__ import annotations

__all__ = ["is_rubin", "parse_rubin"]

import math
from collections.abc import Mapping
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits

from ..catalogs import standard_record
from ._alert import MAX_COORDINATE, Alert, AlertError, Cutout
from ._cutout_fits import FitsCutout, read_cutout

_CUTOUTS = {
    "science": "cutoutScience",
    "template": "cutoutTemplate",
    "difference": "cutoutDifference",
}

_REQUIRED = ("diaSourceId", "visit", "detector", "x", "y", "ra", "dec")

_ORIGIN_TOLERANCE = 0.01
"""How far from whole the origin may be that the WCS gives; x is single precision."""


def is_rubin(record: Mapping[str, Any]) -> bool:
    """Return whether a record is an alert of Rubin."""
    return "diaSource" in record


def parse_rubin(record: Mapping[str, Any], packet: str, number: int) -> Alert:
    """Make an alert of a record.

    Raises
    ------
    AlertError
        If something is missing or not what it should be.
    """
    dia_source = record["diaSource"]
    if not isinstance(dia_source, Mapping):
        raise AlertError(f"diaSource is a {type(dia_source).__name__}, not a record")
    try:
        source = standard_record(dia_source)
    except ValueError as error:
        raise AlertError(str(error)) from error
    for name in _REQUIRED:
        value = source.get(name)
        if value is None or not math.isfinite(value):
            raise AlertError(f"{name} is {value}")
    for name in ("x", "y"):
        if abs(source[name]) > MAX_COORDINATE:
            raise AlertError(f"{name} is {source[name]}, which is no position on a detector")
    if source.get("isNegative") is None and source.get("psfFlux") is not None:
        source["isNegative"] = source["psfFlux"] < 0

    cutouts = {}
    pixel_to_sky = np.full((2, 2), np.nan)
    for plane, name in _CUTOUTS.items():
        content = record.get(name)
        if isinstance(content, Mapping):
            content = content.get("stampData")
        read = read_cutout(content, name)
        cutouts[plane] = _place(read, source["x"], source["y"], name)
        if plane == "difference":
            pixel_to_sky = _pixel_to_sky(read.header)
    return Alert(packet, number, "rubin", source, cutouts, pixel_to_sky)


def _place(read: FitsCutout, x: float, y: float, name: str) -> Cutout:
    scale = 1.0
    if read.unit is not None and read.unit != u.nJy:
        try:
            scale = float(read.unit.to(u.nJy))
        except (u.UnitConversionError, TypeError, AttributeError) as error:
            raise AlertError(f"{name} has the unit {read.header['BUNIT']!r}, which is no flux") from error
    height, width = read.pixels.shape
    x0 = _origin(x, width, read.header.get("CRPIX1"))
    y0 = _origin(y, height, read.header.get("CRPIX2"))
    if not (-1.0 <= x - x0 <= width and -1.0 <= y - y0 <= height):
        raise AlertError(
            f"{name} of {width} by {height} pixels from ({x0}, {y0}) has not the source at ({x}, {y})"
        )
    return Cutout(
        read.pixels if scale == 1.0 else read.pixels * np.float32(scale),
        x0,
        y0,
        None if read.variance is None else read.variance * np.float32(scale**2),
        read.psf,
    )


def _origin(position: float, size: int, reference_pixel: Any) -> int:
    """Return the coordinate of the first pixel along one axis."""
    if isinstance(reference_pixel, int | float) and math.isfinite(reference_pixel):
        origin = position - (reference_pixel - 1.0)
        if abs(origin) < 2 * MAX_COORDINATE and abs(origin - round(origin)) < _ORIGIN_TOLERANCE:
            return round(origin)
    # Boxes are centred on the source; this is where afw puts one of even or odd size.
    return math.floor(position - 0.5 * size) + 1


def _pixel_to_sky(header: fits.Header) -> np.ndarray:
    if "CD1_1" in header:
        return np.array([[header.get(f"CD{i}_{j}", 0.0) for j in (1, 2)] for i in (1, 2)], dtype=float)
    if "PC1_1" not in header and "PC1_2" not in header:
        return np.full((2, 2), np.nan)
    rotation = np.array(
        [[header.get(f"PC{i}_{j}", float(i == j)) for j in (1, 2)] for i in (1, 2)], dtype=float
    )
    return rotation * np.array([[header.get(f"CDELT{i}", 1.0)] for i in (1, 2)], dtype=float)
