"""The maps of one detector, and the table that holds them."""

from __future__ import annotations

__all__ = ["DetectorMaps", "map_unit"]

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from astropy.table import Column, Table
from lsst.images import Box

from ..psf import PolynomialField
from ._smooth_map import SmoothMap

_UNITS = {"shift": "pix", "residualShift": "pix", "kernelX": "pix", "kernelY": "pix", "kernelSum": ""}


def map_unit(quantity: str) -> str:
    """Return the unit of a quantity, as `astropy.units` spells it; empty for ratios and shears."""
    if quantity == "parallacticAngle":
        return "deg"
    if quantity in ("kernelXX", "kernelYY", "kernelXY"):
        return "pix2"
    return next((unit for start, unit in _UNITS.items() if quantity.startswith(start)), "")


@dataclass(frozen=True)
class DetectorMaps:
    """Maps by the name of their quantity.

    Parameters
    ----------
    maps : mapping [`str`, `SmoothMap`]
        The maps.
    """

    maps: Mapping[str, SmoothMap]

    def __contains__(self, quantity: object) -> bool:
        return quantity in self.maps

    def __getitem__(self, quantity: str) -> SmoothMap:
        return self.maps[quantity]

    def __iter__(self) -> Iterator[str]:
        return iter(self.maps)

    def to_table(self) -> Table:
        """Return the maps as a table, one row a quantity and term of its polynomial."""
        largest = max((one.field.n_terms for one in self.maps.values()), default=1)
        rows = []
        for quantity, one in self.maps.items():
            box = one.field.bounds
            covariance = np.zeros((one.field.n_terms, largest))
            covariance[:, : one.field.n_terms] = one.covariance
            errors = np.sqrt(np.maximum(np.diagonal(one.covariance), 0.0))
            shared = (
                map_unit(quantity),
                one.rms,
                one.rms_error,
                one.n_used,
                one.n_rejected,
                one.chi2_per_dof,
                one.field.order,
                box.x.start,
                box.y.start,
                box.x.size,
                box.y.size,
            )
            rows += [
                (quantity, term, value, error, own, *shared)
                for term, (value, error, own) in enumerate(
                    zip(one.coefficients, errors, covariance, strict=True)
                )
            ]
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(_COLUMNS)
        table = Table()
        for (name, (dtype, doc)), values in zip(_COLUMNS.items(), columns, strict=True):
            array = np.array(values, dtype=dtype)
            if name == "covariance":
                array = array.reshape(len(rows), largest)
            table[name] = Column(array, description=doc)
        return table

    @classmethod
    def from_table(cls, table: Table) -> DetectorMaps:
        """Read what `to_table` wrote."""
        maps = {}
        names = np.asarray(table["quantity"]).astype(str)
        for quantity in dict.fromkeys(names):
            rows = table[names == quantity]
            rows.sort("term")
            first = rows[0]
            x, y = int(first["xMin"]), int(first["yMin"])
            bounds = Box.factory[y : y + int(first["height"]), x : x + int(first["width"])]
            maps[str(quantity)] = SmoothMap(
                field=PolynomialField(bounds, int(first["order"])),
                coefficients=np.asarray(rows["coefficient"], dtype=float),
                covariance=np.asarray(rows["covariance"], dtype=float)[:, : len(rows)],
                rms=float(first["rms"]),
                rms_error=float(first["rmsErr"]),
                n_used=int(first["nUsed"]),
                n_rejected=int(first["nRejected"]),
                chi2_per_dof=float(first["chi2PerDof"]),
            )
        return cls(maps)


_COLUMNS: dict[str, tuple[str, str]] = {
    "quantity": ("U32", "What is mapped."),
    "term": (
        "int32",
        "Term of the polynomial: products of Chebyshev polynomials of total degree up to order.",
    ),
    "coefficient": ("float64", "Coefficient of the term, in unit."),
    "coefficientErr": ("float64", "Its standard error."),
    "covariance": ("float64", "Covariances with the coefficients of all terms, padded with zeros."),
    "unit": ("U16", "Unit of coefficient and rms; empty for ratios and shears."),
    "rms": ("float64", "Scatter of single stars about the map beyond their errors."),
    "rmsErr": ("float64", "Standard error of rms."),
    "nUsed": ("int32", "Stars in the fit."),
    "nRejected": ("int32", "Stars left out as outliers."),
    "chi2PerDof": ("float64", "Reduced chi-square of the stars with their own errors, without the scatter."),
    "order": ("int32", "Order of the polynomial."),
    "xMin": ("int32", "x of the first pixel of the box that maps to [-1, 1]."),
    "yMin": ("int32", "y of the first pixel of the box that maps to [-1, 1]."),
    "width": ("int32", "Width of the box [pixel]."),
    "height": ("int32", "Height of the box [pixel]."),
}
