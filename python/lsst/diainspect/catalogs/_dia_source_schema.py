"""Types, units and meanings of every column of the DiaSource table.

The package's own columns come first, then those of the alert production database as lsst-sdm-schemas has them, if it
is installed, then columns of earlier versions of it.
"""

from __future__ import annotations

__all__ = ["ColumnDefinition", "dia_source_schema"]

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import astropy.units as u
import yaml  # type: ignore[import-untyped]

from ..detection import DIA_SOURCE_COLUMNS

_TYPES = {
    "boolean": "bool",
    "byte": "int8",
    "short": "int16",
    "int": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
}
"""numpy types of the schema's numbers; everything else (char, string, timestamp) is text."""


_COVARIANCES = (
    ("x", "y"),
    ("ra", "dec"),
    ("psfFlux", "psfRa", "psfDec"),
    ("trailFlux", "trailRa", "trailDec", "trailLength", "trailAngle"),
    ("dipoleMeanFlux", "dipoleFluxDiff", "dipoleRa", "dipoleDec", "dipoleLength", "dipoleAngle"),
    ("ixx", "iyy", "ixy"),
)
"""Quantities of which earlier versions had the covariances, in the order of the columns' names."""


@dataclass(frozen=True)
class ColumnDefinition:
    """What a column holds.

    Parameters
    ----------
    dtype : `str`
        numpy type; "str" for text of any length.
    unit : `astropy.units.UnitBase` or `None`
        Unit.
    doc : `str`
        Meaning.
    """

    dtype: str
    unit: u.UnitBase | None
    doc: str


@cache
def dia_source_schema() -> dict[str, ColumnDefinition]:
    """Return the definition of every known column by name."""
    schema = _retired_columns()
    schema.update(_sdm_columns())
    for name, column in DIA_SOURCE_COLUMNS.items():
        dtype = "str" if column.dtype.startswith("U") else column.dtype
        schema[name] = ColumnDefinition(dtype, column.unit, column.doc)
    # Recorded identifiers are those of whoever made the table.
    schema["diaSourceId"] = ColumnDefinition("int64", None, "Identifier of the source.")
    schema["snr"] = ColumnDefinition("float32", None, "Signal-to-noise ratio of the detection.")
    return schema


def _sdm_columns() -> dict[str, ColumnDefinition]:
    """Read the columns of lsst-sdm-schemas; none if it is not installed."""
    try:
        found = find_spec("lsst.sdm.schemas")
    except ModuleNotFoundError:
        found = None
    for folder in (found.submodule_search_locations if found else None) or ():
        path = Path(folder) / "apdb.yaml"
        if path.exists():
            break
    else:
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    tables = yaml.load(path.read_text(), Loader=loader)["tables"]
    columns = next(table["columns"] for table in tables if table["name"] == "DiaSource")
    return {
        column["name"]: ColumnDefinition(
            _TYPES.get(column["datatype"], "str"),
            # The schema forgets the unit of some times.
            u.d if column["name"].endswith("MjdTai") else _unit(column.get("fits:tunit")),
            " ".join(column.get("description", "").split()),
        )
        for column in columns
    }


def _unit(text: str | None) -> u.UnitBase | None:
    return u.Unit(text, parse_strict="silent") if text else None


def _retired_columns() -> dict[str, ColumnDefinition]:
    """Columns that tables and alerts of earlier years have."""
    schema = {
        "ccdVisitId": ColumnDefinition("int64", None, "Visit times 1000 plus detector."),
        "snapDiffFlux": ColumnDefinition("float32", u.nJy, "Flux on the difference of two snaps."),
        "snapDiffFluxErr": ColumnDefinition("float32", u.nJy, "Error of snapDiffFlux."),
        "fpBkgd": ColumnDefinition("float32", u.nJy, "Background under the source."),
        "fpBkgdErr": ColumnDefinition("float32", u.nJy, "Error of fpBkgd."),
        "apFlux": ColumnDefinition("float32", u.nJy, "Aperture flux on the difference."),
        "apFluxErr": ColumnDefinition("float32", u.nJy, "Error of apFlux."),
        "scienceFlux": ColumnDefinition("float32", u.nJy, "Forced PSF flux on the science image."),
        "scienceFluxErr": ColumnDefinition("float32", u.nJy, "Error of scienceFlux."),
        "templateFlux": ColumnDefinition("float32", u.nJy, "Forced PSF flux on the template."),
        "templateFluxErr": ColumnDefinition("float32", u.nJy, "Error of templateFlux."),
        "reliability": ColumnDefinition("float32", None, "Probability that the source is real, 0 to 1."),
        "isDipole": ColumnDefinition("bool", None, "A dipole fits well."),
    }
    for kind in ("psf", "trail", "dipole"):
        for name in ("Ra", "Dec"):
            schema[f"{kind}{name}"] = ColumnDefinition("float64", u.deg, f"{name} of the {kind} fit.")
            schema[f"{kind}{name}Err"] = ColumnDefinition("float32", u.deg, f"Error of {kind}{name}.")
        schema[f"{kind}LnL"] = ColumnDefinition("float32", None, f"Log likelihood of the {kind} fit.")
        schema[f"{kind}Chi2"] = ColumnDefinition("float32", None, f"Chi-square of the {kind} fit.")
        schema[f"{kind}Ndata"] = ColumnDefinition("int32", None, f"Pixels in the {kind} fit.")
    for name in ("trailFlux", "dipoleMeanFlux", "dipoleFluxDiff"):
        schema[name] = ColumnDefinition("float32", u.nJy, "Flux of the model.")
        schema[f"{name}Err"] = ColumnDefinition("float32", u.nJy, f"Error of {name}.")
    for kind in ("trail", "dipole"):
        schema[f"{kind}Length"] = ColumnDefinition("float32", u.arcsec, f"Length of the {kind}.")
        schema[f"{kind}LengthErr"] = ColumnDefinition("float32", u.arcsec, f"Error of {kind}Length.")
        schema[f"{kind}Angle"] = ColumnDefinition("float32", u.deg, f"Angle of the {kind}.")
        schema[f"{kind}AngleErr"] = ColumnDefinition("float32", u.deg, f"Error of {kind}Angle.")
    for moment in ("ixx", "iyy", "ixy"):
        schema[moment] = ColumnDefinition("float32", u.arcsec**2, "Second moment of the source.")
        schema[f"{moment}Err"] = ColumnDefinition("float32", u.arcsec**2, f"Error of {moment}.")
        schema[f"{moment}PSF"] = ColumnDefinition("float32", u.arcsec**2, "Second moment of the PSF.")
    units = {name: column.unit or u.one for name, column in schema.items()}
    units |= {"x": u.pix, "y": u.pix, "ra": u.deg, "dec": u.deg, "psfFlux": u.nJy}
    for family in _COVARIANCES:
        for first, second in combinations(family, 2):
            schema[f"{first}_{second}_Cov"] = ColumnDefinition(
                "float32", units[first] * units[second], f"Covariance of {first} and {second}."
            )
    return schema
