"""ZTF's alerts: the candidate record and three gzipped FITS cutouts in counts, without variance and PSF.

The cutouts have 63 pixels a side with the source on the central one; one at the edge of an image may have fewer.
"""

from __future__ import annotations

__all__ = ["NOMINAL_ZERO_POINT", "is_ztf", "parse_ztf"]

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from astropy.time import Time

from ..catalogs import standard_record
from ._alert import MAX_COORDINATE, Alert, AlertError, Cutout
from ._cutout_fits import read_cutout

_CUTOUTS = {
    "science": "cutoutScience",
    "template": "cutoutTemplate",
    "difference": "cutoutDifference",
}

_REQUIRED = ("candid", "jd", "fid", "ra", "dec", "xpos", "ypos", "magpsf", "sigmapsf", "isdiffpos")

_BANDS = {1: "g", 2: "r", 3: "i"}

_AB_ZERO_POINT = 31.4
"""Magnitude of 1 nJy."""

NOMINAL_ZERO_POINT = 26.2
"""Magnitude of one count where the alert does not say, good to 0.1 mag: alerts have ``magzpsci`` since schema 3.0."""

_SIDE = 63
_EXPOSURE_TIME = 30.0
_SECONDS_A_DAY = 86400.0

_IMAGE_NAME = re.compile(r"^ztf_(\d{14})_")
"""Name of the difference image: its number is the date and the fraction of the day, the same for all quadrants."""

_MAPPED = frozenset(
    {"candid", "jd", "fid", "ra", "dec", "xpos", "ypos", "isdiffpos", "rcid", "scorr", "magzpsci"}
)


def is_ztf(record: Mapping[str, Any]) -> bool:
    """Return whether a record is an alert of ZTF."""
    candidate = record.get("candidate")
    return isinstance(candidate, Mapping) and "magpsf" in candidate and "isdiffpos" in candidate


def parse_ztf(record: Mapping[str, Any], packet: str, number: int) -> Alert:
    """Make an alert of a record.

    Raises
    ------
    AlertError
        If something is missing or not what it should be.
    """
    candidate = record["candidate"]
    for name in _REQUIRED:
        value = candidate.get(name)
        if value is None or (name != "isdiffpos" and not _is_finite(value)):
            raise AlertError(f"{name} is {value!r:.40}")
    if candidate["fid"] not in _BANDS:
        raise AlertError(f"fid is {candidate['fid']}, not one of {list(_BANDS)}")
    for name in ("xpos", "ypos"):
        if abs(candidate[name]) > MAX_COORDINATE:
            raise AlertError(f"{name} is {candidate[name]}, which is no position on a detector")
    try:
        source = standard_record(_source(candidate))
    except (ValueError, OverflowError) as error:
        raise AlertError(str(error)) from error

    zero_point = source["magzpsci"]
    scale = np.float32(10.0 ** (-0.4 * (zero_point - _AB_ZERO_POINT)))
    cutouts = {}
    for plane, name in _CUTOUTS.items():
        content = record.get(name)
        if isinstance(content, Mapping):
            content = content.get("stampData")
        pixels = read_cutout(content, name).pixels
        height, width = pixels.shape
        x0, y0 = _origin(source["x"], width), _origin(source["y"], height)
        if not (-1.0 <= source["x"] - x0 <= width and -1.0 <= source["y"] - y0 <= height):
            raise AlertError(f"{name} of {width} by {height} pixels has not the source")
        cutouts[plane] = Cutout(pixels * scale, x0, y0)
    return Alert(packet, number, "ztf", source, cutouts, has_variance=False, has_psf=False)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _source(candidate: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a candidate into the columns of a DIA source; what the DPDD does not have keeps its name."""
    positive = str(candidate["isdiffpos"]).lower() in ("t", "1", "true")
    if not positive and str(candidate["isdiffpos"]).lower() not in ("f", "0", "false"):
        raise ValueError(f"isdiffpos is {candidate['isdiffpos']!r:.40}")
    flux = 10.0 ** (-0.4 * (candidate["magpsf"] - _AB_ZERO_POINT))
    error = flux * candidate["sigmapsf"] * 0.4 * math.log(10.0)
    scorr: Any = candidate.get("scorr")
    zero_point = candidate.get("magzpsci")
    start = Time(candidate["jd"], format="jd", scale="utc").tai.mjd
    source = {
        "diaSourceId": candidate["candid"],
        "visit": _visit(candidate),
        "detector": candidate.get("rcid") or 0,
        "band": _BANDS[candidate["fid"]],
        "midpointMjdTai": float(start) + 0.5 * _EXPOSURE_TIME / _SECONDS_A_DAY,
        "ra": candidate["ra"],
        "dec": candidate["dec"],
        # ZTF counts pixels from 1.
        "x": candidate["xpos"] - 1.0,
        "y": candidate["ypos"] - 1.0,
        "isNegative": not positive,
        "snr": abs(scorr) if _is_finite(scorr) else None,
        "psfFlux": flux if positive else -flux,
        "psfFluxErr": error,
        "magzpsci": zero_point if _is_finite(zero_point) else NOMINAL_ZERO_POINT,
        "zeroPointIsNominal": not _is_finite(zero_point),
    }
    source |= {name: value for name, value in candidate.items() if name not in _MAPPED and name not in source}
    return source


def _visit(candidate: Mapping[str, Any]) -> int:
    found = _IMAGE_NAME.match(str(candidate.get("pdiffimfilename") or ""))
    if found:
        return int(found[1])
    if isinstance(candidate.get("pid"), int):
        return candidate["pid"]
    raise ValueError("neither pdiffimfilename nor pid says which exposure it is of")


def _origin(position: float, size: int) -> int:
    """Return the coordinate of the first pixel; a cutout at the image's lower edge begins there."""
    origin = math.floor(position + 0.5) - _SIDE // 2
    return max(origin, 0) if size < _SIDE else math.floor(position + 0.5) - size // 2
