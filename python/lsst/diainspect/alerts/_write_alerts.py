"""Stamps as alert packets of Rubin: an Avro file that whatever reads alerts can read, `read_alerts` too."""

from __future__ import annotations

__all__ = ["write_alerts"]

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Row

from ..stamps import StampSet, stamp_wcs
from ._packet_files import _fastavro, _wire_schema

_SCHEMA = 1101
"""Schema written: major version times 100 plus minor version."""

_CUTOUTS = {
    "science": "cutoutScience",
    "template": "cutoutTemplate",
    "difference": "cutoutDifference",
}

_NOT_COUNTED = frozenset({"psfNdata", "trailNdata", "dipoleNdata"})
"""Required numbers of pixels, which are zero for what was not measured."""

_CONVERTERS: Mapping[str, Any] = {
    "boolean": bool,
    "int": int,
    "long": int,
    "float": float,
    "double": float,
    "string": str,
}


def write_alerts(
    stamps: StampSet, path: str | os.PathLike[str], *, visit: int, detector: int, band: str
) -> None:
    """Write stamps as alerts, one a source.

    An alert has the columns that the schema of diaSource knows, and three cutouts with variance and PSF where the
    stamps have them. It has no mask, for which the schema has no place, and nothing of other visits.

    Parameters
    ----------
    stamps : `StampSet`
        N stamps with science, template and difference.
    path : path-like
        Avro file to write.
    visit, detector, band
        Where they are from, for source tables that do not say so.

    Raises
    ------
    ValueError
        If a plane or the time of the exposure is missing.
    ModuleNotFoundError
        If fastavro or lsst-alert-packet is not installed.
    """
    missing = set(_CUTOUTS) - set(stamps.planes)
    if missing:
        raise ValueError(f"Alerts need the planes {sorted(_CUTOUTS)}; there is no {sorted(missing)}.")
    schema = _wire_schema(_SCHEMA)
    known = {"visit": visit, "detector": detector, "band": band, "bboxSize": stamps.size}
    # The same stamps give the same bytes.
    marker = hashlib.md5(np.asarray(stamps.sources["diaSourceId"]).tobytes(), usedforsecurity=False).digest()
    with open(path, "wb") as file:
        _fastavro().writer(file, schema, _records(stamps, schema, known), codec="deflate", sync_marker=marker)


def _records(stamps: StampSet, schema: Any, known: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    fields = _source_fields(schema)
    models = {name: model.images().astype(np.float32) for name, model in stamps.models.items()}
    for row, source in enumerate(stamps.sources):
        record = {name: _value(name, types, source, known) for name, types in fields.items()}
        yield {
            "diaSourceId": record["diaSourceId"],
            "diaSource": record,
            **{
                name: _cutout(
                    source,
                    stamps.planes[plane][row],
                    None if (own := stamps.planes.get(f"{plane}Variance")) is None else own[row],
                    None if (psf := models.get(f"{plane}Psf")) is None else psf[row],
                )
                for plane, name in _CUTOUTS.items()
            },
        }


def _source_fields(schema: Any) -> dict[str, list[Any]]:
    """Return the types that each field of diaSource may have."""
    found = next(field["type"] for field in schema["fields"] if field["name"] == "diaSource")
    if not isinstance(found, Mapping):
        # A type that was defined before is known by its name.
        found = schema["__named_schemas"][found]
    return {
        field["name"]: field["type"] if isinstance(field["type"], list) else [field["type"]]
        for field in found["fields"]
    }


def _value(name: str, types: list[Any], source: Row, known: Mapping[str, Any]) -> Any:
    value = source[name] if name in source.colnames else known.get(name)
    if np.ma.is_masked(value) or (isinstance(value, float | np.floating) and not np.isfinite(value)):
        value = None
    if value is None:
        if "null" in types:
            return None
        if name in _NOT_COUNTED:
            return 0
        if name == "timeProcessedMjdTai":
            return float("nan")
        raise ValueError(f"Alerts need {name}, which source {source['diaSourceId']} does not have.")
    convert = next(
        (_CONVERTERS[kind] for kind in types if isinstance(kind, str) and kind in _CONVERTERS), None
    )
    return None if convert is None else convert(value)


def _cutout(source: Row, pixels: np.ndarray, variance: np.ndarray | None, psf: np.ndarray | None) -> bytes:
    """Make the FITS file of a cutout, as Rubin's are."""
    wcs = stamp_wcs(source, of_stamp=True)
    primary = fits.PrimaryHDU(np.asarray(pixels, dtype=np.float32), None if wcs is None else wcs.to_header())
    primary.header["BUNIT"] = "nJy"
    if wcs is None:
        # The place of the source alone, by which a reader finds the origin.
        primary.header["CRPIX1"] = float(source["x"]) - int(source["x0"]) + 1.0
        primary.header["CRPIX2"] = float(source["y"]) - int(source["y0"]) + 1.0
    parts = [primary]
    if variance is not None:
        uncertainty = fits.ImageHDU(np.asarray(variance, dtype=np.float32), name="UNCERT")
        uncertainty.header["UTYPE"] = "VarianceUncertainty"
        uncertainty.header["BUNIT"] = "nJy2"
        parts.append(uncertainty)
    if psf is not None:
        parts.append(fits.ImageHDU(psf, name="PSFIMAGE"))
    content = io.BytesIO()
    fits.HDUList(parts).writeto(content)
    return content.getvalue()
