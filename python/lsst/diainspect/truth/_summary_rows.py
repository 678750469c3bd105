"""The rows of a summary: one value with its interval, and what it is of."""

from __future__ import annotations

__all__ = ["Place", "SummaryRows"]

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Column, Table

_NAMES = (
    *("method", "reference", "statistic", "variable", "binLow", "binHigh", "cut"),
    *("value", "lower", "upper", "n", "unit", "description"),
)


@dataclass(frozen=True)
class Place:
    """What the value of a row is of, if not of everything.

    Parameters
    ----------
    variable : `str`
        Quantity that is binned.
    low, high : `float`
        Edges of the bin.
    cut : `str`
        Flag or condition for which sources are taken away.
    reference : `str`
        Method that is compared with.
    """

    variable: str = ""
    low: float = np.nan
    high: float = np.nan
    cut: str = ""
    reference: str = ""


class SummaryRows:
    """Collects the rows of the summary."""

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []

    def add(
        self,
        method: str,
        statistic: str,
        value: float,
        lower: float,
        upper: float,
        n: float,
        description: str,
        *,
        unit: str = "",
        place: Place | None = None,
    ) -> None:
        """Add a row; NaN for a limit that is not known."""
        where = place if place is not None else Place()
        self._rows.append(
            (
                *(method, where.reference, statistic, where.variable, where.low, where.high, where.cut),
                *(float(value), float(lower), float(upper), int(n), unit, description),
            )
        )

    def table(self) -> Table:
        """Return the rows as a table."""
        docs = {
            "method": "Method.",
            "reference": "Method it is compared with, in paired statistics.",
            "statistic": "What is measured.",
            "variable": "Quantity of the objects that is binned, or at which the statistic is reached.",
            "binLow": "Lower edge of the bin, in the unit of the variable.",
            "binHigh": "Upper edge of the bin.",
            "cut": "Flag or condition: sources for which it holds are taken away. Empty for none.",
            "value": "Value.",
            "lower": "Lower limit of the interval of one sigma.",
            "upper": "Upper limit of the interval of one sigma.",
            "n": "Objects, sources or detectors that the value rests on.",
            "unit": "Unit of value, lower and upper.",
            "description": "Meaning of the statistic.",
        }
        columns = list(zip(*self._rows, strict=True)) if self._rows else [()] * len(_NAMES)
        table = Table()
        for name, values in zip(_NAMES, columns, strict=True):
            if name in ("binLow", "binHigh", "value", "lower", "upper"):
                array = np.array(values, dtype=float)
            elif name == "n":
                array = np.array(values, dtype=np.int64)
            else:
                array = np.array(values, dtype=str) if values else np.zeros(0, dtype="U1")
            table[name] = Column(array, description=docs[name])
        return table
