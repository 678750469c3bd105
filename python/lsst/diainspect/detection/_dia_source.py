"""Columns of the DIA source table: names, types and units of the DPDD (sdm_schemas, apdb, DiaSource), and our own."""

from __future__ import annotations

__all__ = ["DIA_SOURCE_COLUMNS", "OWN_COLUMNS", "empty_dia_sources", "without_sky_sources"]

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import Column, Table

from ._pixel_flags import PIXEL_FLAGS


@dataclass(frozen=True)
class DiaSourceColumn:
    """One column: its type, unit and meaning."""

    dtype: str
    unit: u.UnitBase | None
    doc: str


DIA_SOURCE_COLUMNS: dict[str, DiaSourceColumn] = {
    "diaSourceId": DiaSourceColumn("int64", None, "Packed visit and detector << 37, plus a counter from 1."),
    "visit": DiaSourceColumn("int64", None, "Visit."),
    "detector": DiaSourceColumn("int16", None, "Detector."),
    "band": DiaSourceColumn("U8", None, "Band of the visit."),
    "midpointMjdTai": DiaSourceColumn("float64", u.d, "Middle of the exposure (TAI)."),
    "ra": DiaSourceColumn("float64", u.deg, "Right ascension (ICRS)."),
    "raErr": DiaSourceColumn("float32", u.deg, "Error of ra times cos(dec)."),
    "dec": DiaSourceColumn("float64", u.deg, "Declination (ICRS)."),
    "decErr": DiaSourceColumn("float32", u.deg, "Error of dec."),
    "ra_dec_Cov": DiaSourceColumn("float32", u.deg**2, "Covariance of ra times cos(dec) and dec."),
    "x": DiaSourceColumn("float64", u.pix, "Position in the image's own frame."),
    "xErr": DiaSourceColumn("float32", u.pix, "Error of x."),
    "y": DiaSourceColumn("float64", u.pix, "Position in the image's own frame."),
    "yErr": DiaSourceColumn("float32", u.pix, "Error of y."),
    "centroid_flag": DiaSourceColumn(
        "bool", None, "Position is that of the peak of the score: the fit failed."
    ),
    "isNegative": DiaSourceColumn("bool", None, "Highest peak is negative."),
    "snr": DiaSourceColumn("float32", None, "Absolute value of the score at its peak."),
    "psfFlux": DiaSourceColumn("float32", u.nJy, "PSF flux on the difference."),
    "psfFluxErr": DiaSourceColumn("float32", u.nJy, "Error of psfFlux."),
    "psfChi2": DiaSourceColumn("float32", None, "Chi-square of the PSF fit."),
    "psfNdata": DiaSourceColumn("int32", None, "Pixels in the PSF fit."),
    "psfFlux_flag": DiaSourceColumn("bool", None, "PSF fit failed."),
    "psfFlux_flag_edge": DiaSourceColumn("bool", None, "Part of the PSF lies off the image."),
    "psfFlux_flag_noGoodPixels": DiaSourceColumn("bool", None, "No good pixels to fit."),
    **{name: DiaSourceColumn("bool", None, flag.doc) for name, flag in PIXEL_FLAGS.items()},
    "isDipoleCandidate": DiaSourceColumn(
        "bool", None, "Peaks of both signs, close together, are this one row; nothing was fitted."
    ),
    "nPeaks": DiaSourceColumn("int16", None, "Peaks merged in this row; 0 for a sky source."),
    "lobeRatio": DiaSourceColumn(
        "float32",
        None,
        "Score of the highest peak of the other sign over that of the highest; 0 if there is none.",
    ),
    "positiveX": DiaSourceColumn("float64", u.pix, "Highest positive peak of a dipole candidate, else NaN."),
    "positiveY": DiaSourceColumn("float64", u.pix, "Highest positive peak of a dipole candidate, else NaN."),
    "negativeX": DiaSourceColumn("float64", u.pix, "Highest negative peak of a dipole candidate, else NaN."),
    "negativeY": DiaSourceColumn("float64", u.pix, "Highest negative peak of a dipole candidate, else NaN."),
    "nBlended": DiaSourceColumn(
        "int16", None, "Rows in the group that was fitted jointly, this one included; 0 for a sky source."
    ),
    "sky_source": DiaSourceColumn("bool", None, "Random blank position, not a detection."),
}

OWN_COLUMNS = (
    "isDipoleCandidate",
    "nPeaks",
    "lobeRatio",
    "positiveX",
    "positiveY",
    "negativeX",
    "negativeY",
    "nBlended",
    "sky_source",
)
"""Columns that the DPDD does not have; ``sky_source`` is the stack's name."""


def empty_dia_sources(length: int = 0) -> Table:
    """Return a DIA source table with every column, zero or False in each of ``length`` rows."""
    table = Table()
    for name, column in DIA_SOURCE_COLUMNS.items():
        table[name] = Column(np.zeros(length, dtype=column.dtype), unit=column.unit, description=column.doc)
    return table


def without_sky_sources(sources: Table) -> Table:
    """Return the detections of a DIA source table: all rows but the sky sources, if it says which these are."""
    if "sky_source" not in sources.colnames:
        return sources
    sky = np.asarray(sources["sky_source"], dtype=bool)
    return sources[~sky] if sky.any() else sources
