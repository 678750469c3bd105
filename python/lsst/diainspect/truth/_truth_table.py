"""Truth of any origin (a simulation, DC2, injected sources) brought to one set of columns.

A truth table says which objects changed between template and science image, by how much, and where; objects that did
not change may be in it too and tell what a spurious source lies on.
"""

from __future__ import annotations

__all__ = ["TRUTH_COLUMNS", "TruthColumn", "TruthError", "read_truth", "standard_truth"]

import os
from collections.abc import Mapping
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import Column, Table

from ..catalogs import CatalogError, read_columns, standard_table

_ZERO_POINT = 31.4
"""AB magnitude of 1 nJy."""


class TruthError(ValueError):
    """A truth table that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class TruthColumn:
    """One column of a standard truth table.

    Parameters
    ----------
    dtype : `str`
        numpy type; "str" for text of any length.
    unit : `astropy.units.UnitBase` or `None`
        Unit.
    doc : `str`
        Meaning.
    aliases : `tuple` [`str`, ...]
        Names under which tables have it, the first that is there is taken; ``{band}`` stands for the band.
    """

    dtype: str
    unit: u.UnitBase | None
    doc: str
    aliases: tuple[str, ...]


TRUTH_COLUMNS: dict[str, TruthColumn] = {
    "truthId": TruthColumn(
        "int64",
        None,
        "Identifier of the object; the number of its row where the table has none that is a number.",
        ("truthId", "objectId", "injection_id", "fakeId", "truth_id", "id"),
    ),
    "kind": TruthColumn(
        "str", None, "Kind of object, in the words of the truth.", ("kind", "source_type", "truth_type")
    ),
    "visit": TruthColumn("int64", None, "Visit on which it is true.", ("visit", "obsHistID", "obsHistId")),
    "detector": TruthColumn("int64", None, "Detector on which it is true.", ("detector",)),
    "ra": TruthColumn("float64", u.deg, "Right ascension (ICRS).", ("ra",)),
    "dec": TruthColumn("float64", u.deg, "Declination (ICRS).", ("dec", "decl")),
    "x": TruthColumn("float64", u.pix, "Position in the science image.", ("x",)),
    "y": TruthColumn("float64", u.pix, "Position in the science image.", ("y",)),
    "mjd": TruthColumn(
        "float64",
        u.d,
        "Time at which it is true (TAI).",
        ("mjd", "MJD", "midpointMjdTai", "midPointTai"),
    ),
    "mag": TruthColumn("float64", u.mag, "Magnitude (AB).", ("mag", "mag_{band}")),
    "flux": TruthColumn("float64", u.nJy, "Flux.", ("flux", "flux_{band}")),
    "fluxChange": TruthColumn(
        "float64",
        u.nJy,
        "Flux in the science image minus that in the template.",
        ("fluxChange", "delta_flux"),
    ),
    "isVariable": TruthColumn("bool", None, "It changes.", ("isVariable", "is_variable")),
    "idealSnr": TruthColumn(
        "float64",
        None,
        "|fluxChange| over its error in the best possible difference; the noise of all light at its place counts "
        "where the truth knows it (idealSnrWithSources), else that of the blank sky.",
        ("idealSnrWithSources", "idealSnr"),
    ),
    "hostSurfaceBrightness": TruthColumn(
        "float64",
        u.mag / u.arcsec**2,
        "Surface brightness of the host at its place (AB).",
        ("hostSurfaceBrightness",),
    ),
    "hostSeparation": TruthColumn(
        "float64", u.arcsec, "Distance from the centre of the host.", ("hostSeparation",)
    ),
    "injectionFlag": TruthColumn("int64", None, "Not zero: it was not injected.", ("injection_flag",)),
}
"""Columns of truth tables, as they are looked for."""

_MADE = (
    *("truthId", "kind", "ra", "dec", "x", "y", "mag", "fluxChange", "idealSnr"),
    *("hostSurfaceBrightness", "hostSeparation", "mjd", "visit", "detector"),
)


def read_truth(
    source: str | os.PathLike[str],
    *,
    names: Mapping[str, str] | None = None,
    band: str = "",
) -> Table:
    """Read a truth table from a Parquet, ECSV, CSV or FITS file.

    Parameters
    ----------
    source : `str` or path-like
        The file.
    names, band : optional
        As for `standard_truth`.

    Returns
    -------
    truth : `astropy.table.Table`
        As `standard_truth` makes it.

    Raises
    ------
    TruthError
        If the file cannot be read or lacks positions.
    """
    try:
        columns = read_columns(source)
    except CatalogError as error:
        raise TruthError(str(error)) from error
    try:
        return standard_truth(Table(columns) if columns else Table(), names=names, band=band)
    except TruthError as error:
        raise TruthError(f"{source}: {error}") from error


def standard_truth(table: Table, *, names: Mapping[str, str] | None = None, band: str = "") -> Table:
    """Bring a truth table to the standard columns.

    What counts as a change: ``fluxChange`` where the table has it (``delta_flux`` in DC2's variability truth);
    else, where it says which objects are variable, these, by an unknown amount; else every object, by its whole
    flux or magnitude, as injected sources do.

    Parameters
    ----------
    table : `astropy.table.Table`
        Truth of any origin.
    names : mapping [`str`, `str`], optional
        Name in the table of each standard column that it has under a name not in `TRUTH_COLUMNS`.
    band : `str`, optional
        Band, for columns that have it in their name.

    Returns
    -------
    truth : `astropy.table.Table`
        One row an object. Always there: ``truthId``, ``kind``, ``ra``, ``dec`` (NaN where only x, y are known),
        ``x``, ``y`` (NaN where only ra, dec are known), ``mag`` (of |fluxChange| where that is known),
        ``fluxChange``, ``idealSnr``, ``hostSurfaceBrightness``, ``hostSeparation`` (NaN where unknown),
        ``isChange``. Where the table has them: ``mjd``, ``visit``, ``detector``. Objects that were not injected
        (injection_flag) are left out.

    Raises
    ------
    TruthError
        If a named column is not there, or there is no position.
    """
    names = dict(names or {})
    unknown = sorted(set(names) - TRUTH_COLUMNS.keys())
    if unknown:
        raise TruthError(f"Unknown columns of a truth table {unknown}; known are {list(TRUTH_COLUMNS)}.")
    found: dict[str, np.ndarray] = {}
    for name, column in TRUTH_COLUMNS.items():
        if name in names:
            if names[name] not in table.colnames:
                raise TruthError(
                    f"The truth table has no column {names[name]!r} for {name}; it has {table.colnames}."
                )
            own = names[name]
        else:
            options = [alias.format(band=band) for alias in column.aliases]
            own = next((option for option in options if option in table.colnames), "")
        if own:
            found[name] = _typed(table[own], column)
    if not ({"ra", "dec"} <= found.keys() or {"x", "y"} <= found.keys()):
        raise TruthError(
            f"The truth table has neither ra, dec nor x, y; it has {table.colnames}. Say which columns they are "
            f"(configuration field truthColumns, command option --column ra=NAME)."
        )
    n = len(table)
    unmeasured = np.full(n, np.nan)
    numbers = np.arange(n, dtype=np.int64)
    truth_id = found.get("truthId", numbers)
    found["truthId"] = numbers if truth_id.dtype.kind not in "iu" else truth_id
    found.setdefault("kind", np.full(n, "", dtype="U1"))
    # A table that does not say what changes lists what does.
    variable = found.get("isVariable", np.full(n, "fluxChange" not in found))
    found["fluxChange"] = _flux_change(found, n)
    is_change = np.where(np.isfinite(found["fluxChange"]), found["fluxChange"] != 0.0, variable)
    with np.errstate(divide="ignore"):
        change_mag = _ZERO_POINT - 2.5 * np.log10(np.abs(found["fluxChange"]))
    known = np.isfinite(change_mag)
    found["mag"] = np.where(known, change_mag, found.get("mag", unmeasured))
    truth = Table()
    for name in _MADE:
        definition = TRUTH_COLUMNS[name]
        if name in found:
            values = found[name]
        elif definition.dtype == "float64" and name != "mjd":
            values = unmeasured
        else:
            continue
        doc = "Magnitude of |fluxChange| where that is known (AB)." if name == "mag" else definition.doc
        truth[name] = Column(values, unit=definition.unit, description=doc)
    truth["isChange"] = Column(
        is_change, description="The object changed, so that a difference image should show it."
    )
    if "injectionFlag" in found:
        truth = truth[found["injectionFlag"] == 0]
    return truth


def _flux_change(found: Mapping[str, np.ndarray], n: int) -> np.ndarray:
    if "fluxChange" in found:
        return found["fluxChange"]
    if "isVariable" in found:
        return np.where(found["isVariable"], np.nan, 0.0)
    if "flux" in found:
        return found["flux"]
    if "mag" in found:
        return 10.0 ** (-0.4 * (found["mag"] - _ZERO_POINT))
    return np.full(n, np.nan)


def _typed(column: Column, definition: TruthColumn) -> np.ndarray:
    """Return a column with the standard type and unit; what is missing is NaN, 0, False or empty."""
    values = np.asarray(standard_table({"value": column})["value"])
    if definition.dtype == "str":
        return values.astype(str)
    if definition.dtype == "int64" and values.dtype.kind not in "iub":
        if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.trunc(values)).all():
            return values.astype(np.int64)
        return values
    try:
        unit = getattr(column, "unit", None)
        # Magnitudes come as mag, AB mag or mag(AB): the same number.
        if unit is not None and definition.unit not in (None, u.mag) and values.dtype.kind in "fiu":
            values = u.Quantity(values, unit).to_value(definition.unit)
        return values.astype(definition.dtype)
    except (ValueError, u.UnitConversionError) as error:
        raise TruthError(f"Column {column.name} of the truth table: {error}.") from error
