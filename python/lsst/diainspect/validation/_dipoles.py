"""Dipoles that a pipeline recorded, fitted again.

A recorded length is that of a fit to difference, science image and template together, with lobes of equal flux, so it
is to be compared with our joint fit. What a difference tells by itself of a dipole that is not resolved is the moment,
flux times length, and its direction.
"""

from __future__ import annotations

__all__ = ["compare_dipoles"]

import astropy.units as u
import numpy as np
from astropy.table import Column, Table

from ..diagnostics import diagnostic_registry, measure_diagnostics
from ..stamps import StampSet
from ._recorded import recorded_flag, recorded_value

_OURS = (
    "isDipole",
    "dipoleMoment",
    "dipoleMomentErr",
    "dipoleMomentAngle",
    "dipoleLength",
    "dipoleAngle",
    "jointLength",
    "jointLengthErr",
    "jointMeanFlux",
    "jointAngle",
)


def compare_dipoles(stamps: StampSet) -> Table:
    """Fit the sources that were recorded as dipoles.

    Parameters
    ----------
    stamps : `StampSet`
        Stamps of alerts.

    Returns
    -------
    table : `astropy.table.Table`
        One row for each source with ``isDipole``: our columns of the dipole diagnostic, the recorded ones with
        ``recorded_`` in front, the recorded moment ``recorded_dipoleMoment`` [nJy arcsec], and ``angleDifference``
        and ``jointAngleDifference``, ours minus recorded within +-180 [deg].
    """
    dipoles = stamps[recorded_flag(stamps.sources, "isDipole")]
    plugin = diagnostic_registry["dipole"]
    measured = measure_diagnostics(dipoles, {"dipole": plugin(plugin.ConfigClass())})
    table = Table()
    for name in ("diaSourceId", "visit", "detector"):
        table[name] = dipoles.sources[name]
    for name in _OURS:
        table[name] = measured[f"dipole_{name}"]
    for name, unit in (
        ("dipoleLength", u.arcsec),
        ("dipoleAngle", u.deg),
        ("dipoleMeanFlux", u.nJy),
        ("dipoleChi2", None),
        ("dipoleNdata", None),
    ):
        table[f"recorded_{name}"] = Column(recorded_value(dipoles.sources, name), unit=unit)
    length, flux = (
        np.asarray(table[f"recorded_{name}"], dtype=float) for name in ("dipoleLength", "dipoleMeanFlux")
    )
    table["recorded_dipoleMoment"] = Column(length * flux, unit=u.nJy * u.arcsec)
    for name, ours in (("angleDifference", "dipoleMomentAngle"), ("jointAngleDifference", "jointAngle")):
        difference = np.asarray(table[ours], dtype=float) - np.asarray(
            table["recorded_dipoleAngle"], dtype=float
        )
        table[name] = Column((difference + 180.0) % 360.0 - 180.0, unit=u.deg)
    return table
